# Half of the eight bytes were written.
# subject: stack fp-4
# must: written before they are read
# known: fp-4 was never written
.kind patch
    stw [%r10-8], 1
+    stw [%r10-4], 1
    ldxdw %r0, [%r10-8]           # HERE
    and %r0, 0
    exit
