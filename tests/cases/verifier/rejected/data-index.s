# A table index that may be one too large.
# subject: table
# must: the read of 4 bytes must stay inside the 16 bytes of `table`
# known: points to table plus a number in 0..=16
.kind patch
.data table "0000111122223333"
    mov %r0, 0
    ldxdw %r2, [%r1+112]
-    jgt %r2, 4, out
+    jge %r2, 4, out
    lsh %r2, 2
    lddw %r3, table
    add %r3, %r2
    ldxw %r4, [%r3+0]             # HERE
out:
    exit
