# More memory than there is.
# subject: stack fp-8
# must: the write of 16 bytes must stay inside the 512 bytes of stack
# known: r1 points to stack fp-8
.kind patch
.extern fill(mem[1], u64) -> s32
    stdw [%r10-8], 0
    mov %r1, %r10
    add %r1, -8
-    mov %r2, 16
+    mov %r2, 8
    call extern fill              # HERE
    mov %r0, 0
    exit
