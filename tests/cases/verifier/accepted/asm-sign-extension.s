# A number cut to 32 bits and sign-extended by two shifts keeps what a 32-bit comparison said.
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r2, [%r1+112]
    jsgt32 %r2, 7, out
    jslt32 %r2, -8, out
    lsh %r2, 32
    arsh %r2, 32
    mov %r3, %r10
    add %r3, -8
    add %r3, %r2
    ldxb %r4, [%r3+0]
out:
    exit
