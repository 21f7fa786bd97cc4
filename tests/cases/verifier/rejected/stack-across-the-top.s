# The last byte of the access is past the frame.
# subject: stack fp-7
# must: the write of 8 bytes must stay inside
# known: the access is at -7
.kind patch
    mov %r0, 0
-    stxdw [%r10-7], %r0          # HERE
+    stxdw [%r10-8], %r0
    exit
