# One byte of a stored pointer is overwritten: what is left can't be read.
# subject: stack fp-8
# must: written before they are read
# known: fp-8 was never written
.kind patch
    mov %r2, 7
    stxdw [%r10-8], %r10
-    stxb [%r10-4], %r2
+    stxb [%r10-9], %r2
    ldxdw %r3, [%r10-8]           # HERE
    mov %r0, 0
    exit
