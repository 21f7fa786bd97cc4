# A sign-extended byte may be negative.
# subject: table
# must: the read of 1 byte must stay inside the 128 bytes of `table`
# known: in -128..=127
.kind patch
.data table "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    ldxdw %r2, [%r1+112]
-    movsx864 %r2, %r2
+    and %r2, 0x7f
    lddw %r3, table
    add %r3, %r2
    ldxb %r0, [%r3+0]             # HERE
    and %r0, 0
    exit
