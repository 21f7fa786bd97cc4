# Acquire and release, on the arena and on the stack.
.kind patch
.arena 4096
.global flag 8 4
    lddw %r2, flag
    addr_space_cast %r2, %r2, 1
    load_acquire w %r3, [%r2+0]
    store_release dw [%r10-8], %r3
    load_acquire dw %r4, [%r10-8]
    store_release w [%r2+0], %r4
    mov %r0, 0
    exit
