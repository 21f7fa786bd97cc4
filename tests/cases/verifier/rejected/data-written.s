# Read-only data is not written.
# subject: word+1
# must: what is written must be writable memory
# known: `word` is read-only data
.kind patch
.data word "abc\0"
    mov %r0, 0
    lddw %r2, word
-    stxb [%r2+1], %r0            # HERE
+    ldxb %r3, [%r2+1]
    exit
