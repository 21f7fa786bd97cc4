# A function fills its caller's buffer; the caller reads it.
.kind patch
    mov %r1, %r10
    add %r1, -16
    mov %r2, 2
    call local fill
    ldxdw %r0, [%r10-16]
    ldxdw %r0, [%r10-8]
    mov %r0, 0
    exit
fill:
    stdw [%r1+0], 7
    stdw [%r1+8], 9
    mov %r0, 0
    exit
