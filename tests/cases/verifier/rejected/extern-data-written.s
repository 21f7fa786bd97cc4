# The function might write, the string is read-only.
# subject: word+0
# must: what is written must be writable memory
# known: `word` is read-only data
.kind patch
.data word "abc\0"
-.extern log(mem[1], u64) -> s32
+.extern log(rdmem[1], u64) -> s32
    lddw %r1, word
    mov %r2, 4
    call extern log               # HERE
    mov %r0, 0
    exit
