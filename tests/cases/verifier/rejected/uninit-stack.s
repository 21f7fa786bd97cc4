# Reads a stack slot that nothing wrote.
# subject: stack fp-8
# must: written before they are read
# known: the byte at fp-8 was never written
.kind patch
+    mov %r2, 0
+    stxdw [%r10-8], %r2
    ldxdw %r0, [%r10-8]           # HERE
    and %r0, 0
    exit
