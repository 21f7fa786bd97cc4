# The sum of two pointers points nowhere.
# subject: r2
# must: a pointer must only be moved by adding or subtracting a number
# known: r2 points to stack fp
.kind patch
    mov %r2, %r10
    mov %r3, %r10
-    add %r2, %r3                 # HERE
+    sub %r2, %r3
    mov %r0, 0
    exit
