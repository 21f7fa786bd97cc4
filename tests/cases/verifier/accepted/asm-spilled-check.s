# A check of the copy that was loaded back holds for the register that was spilled.
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r2, [%r1+112]
    stxdw [%r10-24], %r2
    ldxdw %r3, [%r10-24]
    jgt %r3, 15, out
    mov %r4, %r10
    add %r4, -16
    add %r4, %r2
    ldxb %r5, [%r4+0]
    ldxdw %r2, [%r10-24]
    mov %r4, %r10
    add %r4, -16
    add %r4, %r2
    ldxb %r5, [%r4+0]
out:
    exit
