# The size has a bound, but the buffer is smaller.
# subject: r2
# must: the write of 256 bytes must stay inside
# known: r2 is a number in 0..=256
# hint: compare the size with the size of the memory
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
    ldxdw %r3, [%r1+104]
-    jgt %r2, 256, out
+    jgt %r2, 64, out
    mov %r1, %r10
    add %r1, -64
    call bpf_probe_read_user      # HERE
    mov %r0, 0
out:
    exit
