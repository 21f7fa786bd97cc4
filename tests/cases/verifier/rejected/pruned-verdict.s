# The path that is walked first has set a result; the other has not.
# subject: ctx->ax
# must: ctx->ax must be written on every path
# known: not written on this path
.kind patch
    ldxdw %r2, [%r1+112]
+    stxdw [%r1+80], %r2
    jeq %r2, 0, refuse
    stxdw [%r1+80], %r2
refuse:
    mov %r0, 1                   # HERE
    exit
