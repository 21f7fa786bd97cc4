# A signed comparison lets negative sizes through, which are huge.
# subject: r2
# must: must have a known upper bound
# known: r2 is a number
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
    ldxdw %r3, [%r1+104]
    jsgt %r2, 64, out
+    jslt %r2, 0, out
    mov %r1, %r10
    add %r1, -64
    call bpf_probe_read_user      # HERE
    mov %r0, 0
out:
    exit
