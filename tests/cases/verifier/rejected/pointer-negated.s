# A pointer is no operand of negation.
# subject: r2
# must: r2 must be a number
# known: r2 points to stack fp
.kind patch
    mov %r2, %r10
-    neg %r2                      # HERE
+    add %r2, -8
    mov %r0, 0
    exit
