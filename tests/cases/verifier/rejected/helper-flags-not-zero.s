# bpf_loop has no flags.
# subject: r4
# must: argument 4 of bpf_loop must be zero
# known: r4 is the number 1
.kind patch
    mov %r1, 4
    lddw %r2, func body
    mov %r3, 0
-    mov %r4, 1
+    mov %r4, 0
    call bpf_loop                 # HERE
    mov %r0, 0
    exit
body:
    mov %r0, 0
    exit
