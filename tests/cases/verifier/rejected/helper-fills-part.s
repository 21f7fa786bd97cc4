# The helper fills as many bytes as it is told, which may be none.
# subject: stack fp-8
# must: written before they are read
# known: fp-8 was never written
.kind patch
    ldxdw %r3, [%r1+104]
    ldxdw %r2, [%r1+112]
    and %r2, 7
+    stdw [%r10-8], 0
    mov %r1, %r10
    add %r1, -8
    call bpf_probe_read_user
    ldxdw %r0, [%r10-8]           # HERE
    and %r0, 0
    exit
