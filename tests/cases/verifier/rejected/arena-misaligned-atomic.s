# An atomic that would cross its alignment.
# subject: hits+4
# must: an atomic access must be aligned to its 8 bytes
# known: r2 points to hits in the arena
.kind patch
.arena 4096
.global hits 0 16
    mov %r0, 0
    mov %r3, 1
    lddw %r2, hits
    addr_space_cast %r2, %r2, 1
-    lock add [%r2+4], %r3        # HERE
+    lock add [%r2+8], %r3
    exit
