# A map helper is refused by name.
# subject: bpf_map_lookup_elem
# must: a call must go to a helper that upatch has
# known: helper 1 is the kernel's bpf_map_lookup_elem
# hint: there are no maps: use an arena variable
.kind patch
    mov %r2, 0
-    call 1                       # HERE
+    call 7
    mov %r0, 0
    exit
