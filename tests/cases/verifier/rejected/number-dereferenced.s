# An address of the application is a number to us.
# subject: r2
# must: must go through a pointer to known memory
# known: r2 is any number
# hint: bpf_probe_read_user()
.kind patch
    ldxdw %r2, [%r1+112]
-    ldxdw %r0, [%r2+0]           # HERE
+    mov %r0, %r2
    and %r0, 0
    exit
