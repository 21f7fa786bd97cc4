# All 64 bits of the verdict count: the upper half is garbage here.
# subject: r0
# must: UPATCH_CONTINUE (0) or UPATCH_RETURN (1)
# known: bits that may be set: 0xffffffff00000000
.kind patch
    ldxdw %r0, [%r1+112]         # HERE
    jne32 %r0, 0, other
+    and32 %r0, 0
    exit
other:
    mov %r0, 0
    exit
