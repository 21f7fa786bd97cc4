# The path that is walked first knows that r8 is a copy of r7; the other must not be pruned by it.
# subject: r3
# must: the read of 1 byte must stay inside the 512 bytes of stack
# known: points to fp plus any number
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r7, [%r1+112]
    ldxdw %r8, [%r1+104]
    ldxdw %r2, [%r1+96]
+    mov %r8, %r7
    jeq %r2, 0, use
    mov %r8, %r7
use:
    jge %r7, 16, out
    mov %r3, %r10
    add %r3, -16
    add %r3, %r8
    ldxb %r4, [%r3+0]             # HERE
out:
    exit
