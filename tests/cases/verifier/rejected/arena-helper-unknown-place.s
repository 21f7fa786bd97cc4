# A helper is given arena memory whose place nobody knows.
# subject: arena
# must: must be memory of known place and size
# known: an arena pointer whose offset is not known
# hint: pass the address of an arena variable
.kind patch
.arena 8192
.global buffer 0 4096
.global where 4096 8
    ldxdw %r6, [%r1+112]
-    lddw %r1, where
-    addr_space_cast %r1, %r1, 1
-    ldxdw %r1, [%r1+0]
+    lddw %r1, buffer
    addr_space_cast %r1, %r1, 1
    mov %r2, 64
    mov %r3, %r6
    call bpf_probe_read_user      # HERE
    mov %r0, 0
    exit
