# A callback is a function of the patch.
# subject: r2
# must: argument 2 of bpf_loop must be a static function of the patch
# known: r2 is the number 7
.kind patch
    mov %r1, 4
-    mov %r2, 7
+    lddw %r2, func body
    mov %r3, 0
    mov %r4, 0
    call bpf_loop                 # HERE
    lddw %r2, func body
    mov %r0, 0
    exit
body:
    mov %r0, 0
    exit
