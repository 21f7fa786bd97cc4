# A pointer to the stack means nothing to those who share the arena.
# subject: r10
# must: what is stored in the arena must be a number or an arena pointer
# known: r10 points to stack fp
# hint: other processes and later calls read the arena
.kind patch
.arena 4096
.global slot 0 8
    mov %r0, 0
    lddw %r2, slot
    addr_space_cast %r2, %r2, 1
-    stxdw [%r2+0], %r10          # HERE
+    stxdw [%r2+0], %r2
    exit
