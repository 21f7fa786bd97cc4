# The destination must be memory of ours.
# subject: r1
# must: argument 1 of bpf_probe_read_user must point to memory of the patch
# known: r1 is any number
.kind patch
    ldxdw %r3, [%r1+104]
-    ldxdw %r1, [%r1+112]
+    mov %r1, %r10
+    add %r1, -8
    mov %r2, 8
    call bpf_probe_read_user      # HERE
    mov %r0, 0
    exit
