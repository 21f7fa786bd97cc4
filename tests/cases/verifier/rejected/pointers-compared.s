# A pointer is not comparable with an arbitrary number.
# subject: r2
# must: a pointer must only be compared with null
# known: r2 points to stack fp
.kind patch
    mov %r0, 0
    mov %r2, %r10
-    jeq %r2, 4096, out           # HERE
+    jeq %r2, 0, out
    stdw [%r2-8], 0
out:
    exit
