# A pointer of unknown place is compared with the end.
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r4, [%r1+112]
    and %r4, 63
    mov %r2, %r10
    add %r2, -16
    add %r2, %r4
    jge %r2, %r10, out
    ldxb %r3, [%r2+0]
out:
    exit
