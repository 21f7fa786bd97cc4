# Not even a patch inside a function may write rsp.
# subject: ctx->sp
# must: must be one that this kind of program may write
# known: all general registers but sp
.kind patch_offset
    mov %r0, 0
-    stxdw [%r1+152], %r0         # HERE
+    stxdw [%r1+40], %r0
    exit
