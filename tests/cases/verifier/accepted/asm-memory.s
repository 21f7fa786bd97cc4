# A memory program: r1 points at its memory, r2 is its length.
.kind memory 64
    mov %r0, 0
    mov %r3, %r1
    add %r3, %r2
again:
    jge %r1, %r3, out
    ldxdw %r4, [%r1+0]
    add %r0, %r4
    stxdw [%r1+0], %r0
    add %r1, 8
    ja again
out:
    exit
