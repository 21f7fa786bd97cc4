# The function takes all 64 bits of the size; the comparison looked at 32.
# subject: r2
# must: the size of argument 1 of log must have a known upper bound
# known: r2 is a number in
.kind patch
-.extern log(rdmem[1], u64) -> s32
+.extern log(rdmem[1], u32) -> s32
    stdw [%r10-8], 0
    ldxdw %r2, [%r1+112]
    mov %r0, 0
    jgt32 %r2, 8, out
    mov %r1, %r10
    add %r1, -8
    call extern log               # HERE
    mov %r0, 0
out:
    exit
