# The path that is walked first writes the slot; the other does not.
# subject: stack fp-8
# must: written before they are read
# known: fp-8 was never written
.kind patch
    ldxdw %r2, [%r1+112]
+    stdw [%r10-8], 0
    jeq %r2, 0, use
    stdw [%r10-8], 1
use:
    ldxdw %r3, [%r10-8]           # HERE
    mov %r0, 0
    exit
