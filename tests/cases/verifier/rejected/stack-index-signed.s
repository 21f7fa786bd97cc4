# A signed comparison does not bound the index from below.
# subject: r3
# must: the read of 1 byte must stay inside
# known: points to fp plus any number
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    mov %r3, %r10
    add %r3, -16
    jsgt %r2, 15, out
+    jslt %r2, 0, out
    add %r3, %r2
    ldxb %r4, [%r3+0]             # HERE
out:
    exit
