# The comparison lets one index too many through.
# subject: stack fp-16
# must: the read of 1 byte must stay inside
# known: in -16..=0
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    mov %r3, %r10
    add %r3, -16
-    jgt %r2, 16, out
+    jge %r2, 16, out
    add %r3, %r2
    ldxb %r4, [%r3+0]             # HERE
out:
    exit
