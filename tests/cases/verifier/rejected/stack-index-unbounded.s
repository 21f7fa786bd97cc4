# An unbounded index into the stack.
# subject: stack fp-16
# must: the read of 1 byte must stay inside the 512 bytes of stack
# known: points to fp plus a number
# hint: compare the index with the size
.kind patch
    ldxdw %r2, [%r1+112]
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    mov %r3, %r10
    add %r3, -16
-    and %r2, 0xffff
+    and %r2, 0xf
    add %r3, %r2
    ldxb %r0, [%r3+0]             # HERE
    and %r0, 0
    exit
