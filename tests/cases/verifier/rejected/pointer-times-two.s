# A pointer is only moved by additions and subtractions.
# subject: r2
# must: a pointer must only be moved by adding or subtracting
# known: r2 points to stack fp
.kind patch
    mov %r2, %r10
-    mul %r2, 2                   # HERE
+    add %r2, -2
    mov %r0, 0
    exit
