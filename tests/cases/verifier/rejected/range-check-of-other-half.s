# The check looks at the low half, the use at all 64 bits.
# subject: r3
# must: the read of 1 byte must stay inside
# known: points to fp plus a number
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r2, [%r1+112]
-    jge32 %r2, 16, out
+    jge %r2, 16, out
    mov %r3, %r10
    add %r3, -16
    add %r3, %r2
    ldxb %r4, [%r3+0]             # HERE
out:
    exit
