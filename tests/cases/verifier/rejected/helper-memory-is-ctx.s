# ctx is not memory that a helper could fill.
# subject: r1
# must: ctx is not memory
# known: r1 points to ctx
.kind patch
    ldxdw %r3, [%r1+112]
+    mov %r1, %r10
+    add %r1, -8
    mov %r2, 8
    call bpf_probe_read_user      # HERE
    mov %r0, 0
    exit
