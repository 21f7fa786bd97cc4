# A 32-bit addition cuts a pointer.
# subject: r2
# must: a pointer must keep all its 64 bits
# known: r2 points to stack fp
.kind patch
    mov %r2, %r10
-    add32 %r2, -8                # HERE
+    add %r2, -8
    mov %r0, 0
    exit
