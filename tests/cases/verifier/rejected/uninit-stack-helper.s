# A helper would read stack bytes that nothing wrote.
# subject: stack fp-16
# must: written before they are read
# known: fp-16 was never written
.kind patch
.data word "shutdown\0"
+    mov %r1, 0
+    stxdw [%r10-16], %r1
    stdw [%r10-8], 0
    mov %r1, %r10
    add %r1, -16
    mov %r2, 16
    lddw %r3, word
    call bpf_strncmp              # HERE
    mov %r0, 0
    exit
