# A function does not see its caller's r6.
# subject: r6
# must: r6 must be written before it is read
# known: never written
.kind patch
    mov %r6, 1
    call local f
    mov %r0, 0
    exit
f:
-    mov %r0, %r6                 # HERE
+    mov %r0, 1
    exit
