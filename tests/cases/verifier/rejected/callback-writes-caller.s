# What a callback writes into its caller's frame holds afterwards: the index is no longer small.
# subject: r3
# must: the read of 1 byte must stay inside
# known: points to fp plus any number
.kind patch
    stdw [%r10-8], 0
    stdw [%r10-32], 0
    stdw [%r10-24], 0
    mov %r1, 4
    lddw %r2, func body
    mov %r3, %r10
    add %r3, -8
    mov %r4, 0
    call bpf_loop
    ldxdw %r2, [%r10-8]
+    and %r2, 15
    mov %r3, %r10
    add %r3, -32
    add %r3, %r2
    ldxb %r0, [%r3+0]             # HERE
    and %r0, 0
    exit
body:
    ldxdw %r3, [%r2+0]
    add %r3, 1
    stxdw [%r2+0], %r3
    mov %r0, 0
    exit
