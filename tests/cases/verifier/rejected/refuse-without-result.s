# The call ends without a result.
# subject: ctx->ax
# must: ctx->ax must be written on every path that returns UPATCH_RETURN
# known: ctx->ax was not written on this path
.kind patch
    mov %r0, 0
+    stxdw [%r1+80], %r0
    mov %r0, 1                   # HERE
    exit
