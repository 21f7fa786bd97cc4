# A stored pointer read back in part.
# subject: stack fp-8
# must: a stored pointer must be read back whole
# known: a pointer is stored at fp-8
.kind patch
    stxdw [%r10-8], %r10
-    ldxw %r2, [%r10-8]           # HERE
+    ldxdw %r2, [%r10-8]
    mov %r0, 0
    exit
