# The helper would write past the arena's window.
# subject: buffer+4032
# must: the write of 128 bytes must stay inside the 4096 bytes of the arena
# known: buffer
.kind patch
.arena 4096
.global buffer 0 4096
    ldxdw %r3, [%r1+112]
    lddw %r1, buffer+4032
    addr_space_cast %r1, %r1, 1
-    mov %r2, 128
+    mov %r2, 64
    call bpf_probe_read_user      # HERE
    mov %r0, 0
    exit
