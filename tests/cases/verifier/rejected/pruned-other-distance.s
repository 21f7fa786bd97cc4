# Both paths know r8 from r7, but at another distance.
# subject: stack fp-8
# must: the read of 1 byte must stay inside the 512 bytes of stack
# known: plus a number in -8..=7
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r7, [%r1+112]
    ldxdw %r2, [%r1+96]
    mov %r8, %r7
    jeq %r2, 0, longer
    ja use
longer:
-    add %r8, 8
+    add %r8, 0
use:
    jge %r7, 16, out
    mov %r3, %r10
    add %r3, -16
    jlt %r2, 1, far
    ldxb %r4, [%r10-1]
    ja out
far:
    add %r3, %r8
    ldxb %r4, [%r3+0]             # HERE
out:
    exit
