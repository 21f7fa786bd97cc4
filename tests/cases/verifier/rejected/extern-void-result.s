# The function has no result.
# subject: r0
# must: r0 must be written before it is read
# known: never written
.kind patch
-.extern take(u32) -> void
+.extern take(u32) -> u32
    mov %r1, 1
    call extern take
    mov %r2, %r0                  # HERE
    mov %r0, 0
    exit
