# One load that reads the stack on one path, and somewhere in the arena on the other: masking would be wrong for one.
# subject: r2
# must: one instruction must reach the same kind of memory on every path
# known: points to memory of another kind on another path
# hint: separate branches
.kind patch
.arena 4096
    ldxdw %r3, [%r1+112]
    stdw [%r10-8], 0
    mov %r2, %r10
    add %r2, -8
    jeq %r3, 0, use
-    addr_space_cast %r2, %r3, 1
+    lddw %r2, arena
use:
    ldxdw %r4, [%r2+0]            # HERE
    mov %r0, 0
    exit
