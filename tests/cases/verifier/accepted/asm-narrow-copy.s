# `n - 1 <= 9` on a 32-bit copy bounds the low half of the original.
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r6, [%r1+112]
    mov32 %r2, %r6
    add32 %r2, -1
    jgt %r2, 9, out
    mov32 %r3, %r6
    mov %r4, %r10
    add %r4, -17
    add %r4, %r3
    ldxb %r5, [%r4+0]
out:
    exit
