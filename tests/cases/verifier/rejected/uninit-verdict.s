# The program ends without a result.
# subject: r0
# must: r0 must be written
# known: never written
.kind patch
    ldxdw %r2, [%r1+112]
+    mov %r0, 0
    exit                          # HERE
