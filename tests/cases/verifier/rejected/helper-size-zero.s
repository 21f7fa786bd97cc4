# The size may be zero, which this helper does not take.
# subject: r2
# must: argument 2 of bpf_get_current_comm, a size, must not be zero
# known: r2 is a number in 0..=15
.kind patch
    ldxdw %r2, [%r1+112]
    and %r2, 15
+    add %r2, 1
    mov %r1, %r10
    add %r1, -16
    call bpf_get_current_comm     # HERE
    mov %r0, 0
    exit
