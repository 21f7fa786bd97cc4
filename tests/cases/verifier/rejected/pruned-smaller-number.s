# The path that is walked first has a small index; the other does not.
# subject: r3
# must: the read of 1 byte must stay inside
# known: points to fp plus any number
.kind patch
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r7, [%r1+112]
    ldxdw %r2, [%r1+104]
+    and %r7, 7
    jeq %r2, 0, use
    mov %r7, 5
use:
    mov %r3, %r10
    add %r3, -16
    add %r3, %r7
    ldxb %r4, [%r3+0]             # HERE
    mov %r0, 0
    exit
