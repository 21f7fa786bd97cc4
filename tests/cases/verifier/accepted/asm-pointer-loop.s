# A pointer runs to the end of a buffer.
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    mov %r2, %r10
    add %r2, -16
again:
    ldxb %r3, [%r2+0]
    jeq %r3, 47, out
    add %r2, 1
    jne %r2, %r10, again
out:
    exit
