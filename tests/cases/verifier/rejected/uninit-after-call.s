# A call leaves nothing in r1 to r5.
# subject: r1
# must: r1 must be written before it is read
# known: never written
# hint: calls leave nothing in r1 to r5
.kind patch
+    mov %r6, %r1
    call bpf_ktime_get_ns
-    ldxdw %r0, [%r1+112]         # HERE
+    ldxdw %r0, [%r6+112]
    and %r0, 0
    exit
