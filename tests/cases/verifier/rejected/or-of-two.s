# What bounds an or bounds its parts, not what is added to one of them.
# subject: stack fp-14
# must: the read of 1 byte must stay inside
# known: in -14..=1
.kind patch
    mov %r0, 0
    stdw [%r10-16], 0
    stdw [%r10-8], 0
    ldxdw %r7, [%r1+112]
    ldxdw %r8, [%r1+104]
    mov %r2, %r7
    or %r2, %r8
    jgt %r2, 15, out
-    add %r7, 2
    mov %r3, %r10
    add %r3, -16
    add %r3, %r7
    ldxb %r4, [%r3+0]             # HERE
out:
    exit
