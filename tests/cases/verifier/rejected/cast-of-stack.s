# The stack is not in the arena.
# subject: r2
# must: what is cast to the arena must point into the arena
# known: r2 points to stack fp
.kind patch
.arena 4096
    mov %r0, 0
-    mov %r2, %r10
+    lddw %r2, arena
    addr_space_cast %r2, %r2, 0x10000 # HERE
    exit
