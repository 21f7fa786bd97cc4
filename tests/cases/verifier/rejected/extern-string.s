# The function wants a constant string.
# subject: r1
# must: argument 1 of say must be a constant string
# known: r1 is any number
.kind patch
.data word "abc\0"
.extern say(str) -> void
-    ldxdw %r1, [%r1+112]
+    lddw %r1, word
    call extern say               # HERE
    mov %r0, 0
    exit
