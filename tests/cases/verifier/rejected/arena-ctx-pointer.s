# Nor is ctx anything outside of this call.
# subject: r1
# must: what is stored in the arena must be a number or an arena pointer
# known: r1 points to ctx
.kind patch
.arena 4096
.global slot 0 8
    mov %r0, 0
    lddw %r2, slot
    addr_space_cast %r2, %r2, 1
+    ldxdw %r1, [%r1+112]
    stxdw [%r2+0], %r1            # HERE
    exit
