# One of the paths that end the call sets no result.
# subject: ctx->ax
# must: ctx->ax must be written on every path
# known: not written on this path
.kind patch
    ldxdw %r2, [%r1+112]
    mov %r3, -1
+    stxdw [%r1+80], %r3
    jgt %r2, 100, refuse
    stxdw [%r1+80], %r3
refuse:
    mov %r0, 1                   # HERE
    exit
