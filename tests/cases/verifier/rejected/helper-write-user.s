# Writing the application's memory has to be allowed.
# subject: bpf_probe_write_user
# must: must not write the program's memory unless that is allowed
# known: bpf_probe_write_user writes it
# hint: --allow-write
.kind patch
    ldxdw %r1, [%r1+112]
    stdw [%r10-8], 0
-    mov %r2, %r10
-    add %r2, -8
-    mov %r3, 8
-    call bpf_probe_write_user    # HERE
    mov %r0, 0
    exit
