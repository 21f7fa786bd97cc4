# No bit above the low four is set.
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r2, [%r1+112]
    jset %r2, -16, out
    mov %r3, %r10
    add %r3, -16
    add %r3, %r2
    ldxb %r4, [%r3+0]
out:
    exit
