# Pointers into different objects have no distance.
# subject: r2
# must: pointers that are subtracted must point into the same object
# known: r2 points to stack fp
.kind patch
.data word "abc\0"
    mov %r2, %r10
-    lddw %r3, word
+    mov %r3, %r10
    sub %r2, %r3                  # HERE
    mov %r0, 0
    exit
