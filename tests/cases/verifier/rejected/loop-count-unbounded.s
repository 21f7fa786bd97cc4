# The number of iterations is whatever the application passes.
# subject: r1
# must: the iterations of bpf_loop must fit into the budget of 1000000 executed instructions
# known: at most 8388608 iterations
# hint: limit the number of iterations
.kind patch
    ldxdw %r1, [%r1+112]
+    and %r1, 0xfff
    lddw %r2, func body
    mov %r3, 0
    mov %r4, 0
    call bpf_loop                 # HERE
    mov %r0, 0
    exit
body:
    mov %r0, 0
    exit
