# The caller does not pass the argument that the function reads.
# subject: r1
# must: r1 must be written before it is read
# known: never written
.kind patch
-    call bpf_ktime_get_ns
+    mov %r1, 4
    call local f
    mov %r0, 0
    exit
f:
    mov %r0, %r1                  # HERE
    exit
