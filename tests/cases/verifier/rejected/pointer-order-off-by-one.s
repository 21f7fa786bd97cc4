# The pointer may be equal to the one it is compared with.
# subject: stack fp-17
# must: written before they are read
# known: fp-17 was never written
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r4, [%r1+112]
    and %r4, 15
    mov %r2, %r10
    add %r2, -16
    add %r2, %r4
    mov %r3, %r10
    add %r3, -8
    jge %r2, %r3, behind
    exit
behind:
-    ldxb %r4, [%r2-9]            # HERE
+    ldxb %r4, [%r2-8]
    exit
