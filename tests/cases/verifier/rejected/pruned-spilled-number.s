# The number in the slot is small on the path that is walked first only.
# subject: r3
# must: the read of 1 byte must stay inside
# known: points to fp plus any number
.kind patch
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r7, [%r1+112]
    ldxdw %r2, [%r1+104]
-    stxdw [%r10-24], %r7
+    stdw [%r10-24], 9
    jeq %r2, 0, use
    stdw [%r10-24], 5
use:
    ldxdw %r7, [%r10-24]
    mov %r3, %r10
    add %r3, -16
    add %r3, %r7
    ldxb %r4, [%r3+0]             # HERE
    mov %r0, 0
    exit
