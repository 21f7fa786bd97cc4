# The function would read bytes that nothing wrote.
# subject: stack fp-4
# must: written before they are read
# known: fp-4 was never written
.kind patch
.extern log(rdmem[1], u64) -> s32
    stw [%r10-8], 0
+    stw [%r10-4], 0
    mov %r1, %r10
    add %r1, -8
    mov %r2, 8
    call extern log               # HERE
    mov %r0, 0
    exit
