# A read past the end of a string.
# subject: word+4
# must: must stay inside the 4 bytes of `word`
# known: r2 points to word+0, and the access is at +4
.kind patch
.data word "abc\0"
    lddw %r2, word
-    ldxb %r0, [%r2+4]            # HERE
+    ldxb %r0, [%r2+3]
    and %r0, 0
    exit
