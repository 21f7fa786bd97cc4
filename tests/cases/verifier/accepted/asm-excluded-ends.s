# `!=` cuts off the ends of a range.
.kind patch
    mov %r0, 0
    stdw [%r10-8], 0
    ldxdw %r2, [%r1+112]
    and %r2, 7
    jeq %r2, 0, out
    jeq %r2, 7, out
    mov %r3, %r10
    add %r3, -9
    add %r3, %r2
    ldxh %r4, [%r3+0]
out:
    exit
