# The string to compare with must be constant.
# subject: r3
# must: argument 3 of bpf_strncmp must be a constant string
# known: r3 points to stack fp-8
.kind patch
.data word "abc\0"
    stdw [%r10-8], 0
    mov %r1, %r10
    add %r1, -8
    mov %r2, 8
-    mov %r3, %r1
+    lddw %r3, word
    call bpf_strncmp              # HERE
    mov %r0, 0
    exit
