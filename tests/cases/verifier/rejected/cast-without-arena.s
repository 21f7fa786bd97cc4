# There is no arena to cast to.
# subject: r2
# must: an arena pointer needs an arena
# known: the program has no arena variable
.kind patch
    ldxdw %r2, [%r1+112]
-    addr_space_cast %r2, %r2, 1  # HERE
    mov %r0, 0
    exit
