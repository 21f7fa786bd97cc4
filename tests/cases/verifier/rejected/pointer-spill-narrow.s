# A pointer stored in four bytes loses half of it.
# subject: r10
# must: a pointer must be stored whole
# known: r10 points to stack fp
.kind patch
    mov %r0, 0
-    stxw [%r10-8], %r10          # HERE
+    stxdw [%r10-8], %r10
    exit
