# A null that the function does not take.
# subject: r1
# must: argument 1 of take must not be null
# known: r1 is the number 0
# hint: __nullable
.kind patch
-.extern take(ptr) -> void
+.extern take(ptr?) -> void
    mov %r1, 0
    call extern take              # HERE
    mov %r0, 0
    exit
