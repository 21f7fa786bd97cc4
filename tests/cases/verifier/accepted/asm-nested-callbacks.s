# A loop in a loop: 10 times 10.
.kind patch
.arena 4096
.global hits 0 8
    mov %r1, 10
    lddw %r2, func outer
    mov %r3, 0
    mov %r4, 0
    call bpf_loop
    mov %r0, 0
    exit
outer:
    mov %r6, %r1
    mov %r1, 10
    lddw %r2, func inner
    mov %r3, %r6
    mov %r4, 0
    call bpf_loop
    mov %r0, 0
    exit
inner:
    lddw %r3, hits
    addr_space_cast %r3, %r3, 1
    lock add [%r3+0], %r2
    mov %r0, 0
    exit
