# One of two paths to the use writes the register.
# subject: r3
# must: r3 must be written before it is read
# known: never written
.kind patch
    ldxdw %r2, [%r1+112]
+    mov %r3, 0
    jeq %r2, 0, use
    mov %r3, 1
use:
    mov %r0, %r3                  # HERE
    and %r0, 0
    exit
