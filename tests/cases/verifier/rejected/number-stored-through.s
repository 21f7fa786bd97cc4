# Nor can the application's memory be written by a store.
# subject: r2
# must: the write of 8 bytes must go through a pointer to known memory
# known: any number
# hint: bpf_probe_write_user()
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
-    stxdw [%r2+0], %r0           # HERE
+    stxdw [%r1+112], %r0
    exit
