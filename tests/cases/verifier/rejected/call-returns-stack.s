# The frame is gone when the function returns.
# subject: r0
# must: a function must not return a pointer into its own stack
# known: r0 points to stack fp-8
.kind patch
    call local f
    mov %r0, 0
    exit
f:
    mov %r0, %r10
    add %r0, -8                  # HERE
+    sub %r0, %r10
    exit
