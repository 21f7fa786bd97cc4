# An access below the 512 bytes of a frame.
# subject: stack fp-520
# must: must stay inside the 512 bytes of stack
# known: r10 points to stack fp, and the access is at -520
.kind patch
    mov %r0, 0
-    stxdw [%r10-520], %r0        # HERE
+    stxdw [%r10-512], %r0
    exit
