# The size is whatever the application passes.
# subject: r2
# must: the size of argument 1 of bpf_probe_read_user must have a known upper bound
# known: r2 is any number
# hint: compare it
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
    ldxdw %r3, [%r1+104]
+    jgt %r2, 64, out
    mov %r1, %r10
    add %r1, -64
    call bpf_probe_read_user      # HERE
    mov %r0, 0
out:
    exit
