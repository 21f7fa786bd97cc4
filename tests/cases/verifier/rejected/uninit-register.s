# Reads a register that nothing wrote.
# subject: r2
# must: r2 must be written before it is read
# known: r2 was never written on this path
.kind patch
-    mov %r0, %r2                 # HERE
+    mov %r0, 0
    exit
