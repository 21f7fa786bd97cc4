# Flags are nobody's to write.
# subject: ctx->flags
# must: must be one that this kind of program may write
# known: ctx->flags is written
.kind patch_offset
    mov %r0, 0
-    stxdw [%r1+144], %r0         # HERE
+    stxdw [%r1+80], %r0
    exit
