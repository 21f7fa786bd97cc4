# A patch at an entry may not write rbx.
# subject: ctx->bx
# must: must be one that this kind of program may write
# known: ctx->bx is written; a patch at a function's entry may write di, si, dx, cx, r8, r9 and ax
.kind patch
    mov %r0, 0
-    stxdw [%r1+40], %r0          # HERE
+    stxdw [%r1+112], %r0
    exit
