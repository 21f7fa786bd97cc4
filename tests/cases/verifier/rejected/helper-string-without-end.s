# The constant string has no end.
# subject: word
# must: must be a constant string that ends with a zero byte
# known: `word` has no zero byte from there on
.kind patch
-.data word "abc"
+.data word "abc\0"
    stdw [%r10-8], 0
    mov %r1, %r10
    add %r1, -8
    mov %r2, 8
    lddw %r3, word
    call bpf_strncmp              # HERE
    mov %r0, 0
    exit
