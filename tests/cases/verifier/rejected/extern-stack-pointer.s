# The application could keep a pointer to our stack.
# subject: r1
# must: argument 1 of take must be a pointer of the application
# known: r1 points to stack fp-8
# hint: annotated with its size
.kind patch
.extern take(ptr) -> void
-    mov %r1, %r10
-    add %r1, -8
+    ldxdw %r1, [%r1+112]
    call extern take              # HERE
    mov %r0, 0
    exit
