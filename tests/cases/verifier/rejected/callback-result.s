# A callback goes on with 0 and stops with 1.
# subject: r0
# must: a callback must return 0 (go on) or 1 (stop)
# known: r0 is a number in 0..=3
.kind patch
    mov %r1, 4
    lddw %r2, func body
    mov %r3, 0
    mov %r4, 0
    call bpf_loop
    mov %r0, 0
    exit
body:
    mov %r0, %r1                 # HERE
+    and %r0, 1
    exit
