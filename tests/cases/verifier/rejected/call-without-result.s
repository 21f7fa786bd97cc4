# The function sets no result.
# subject: r0
# must: r0 must be written before it is read
# known: never written
.kind patch
    call local f
    mov %r2, %r0                  # HERE
    mov %r0, 0
    exit
f:
    mov %r1, 0
+    mov %r0, 0
    exit
