# Nor may its address be left behind in the caller's frame.
# subject: r2
# must: must not be stored where it outlives the function
# known: r2 points to stack fp-8
.kind patch
    mov %r1, %r10
    add %r1, -8
    call local f
    mov %r0, 0
    exit
f:
-    mov %r2, %r10
-    add %r2, -8
+    mov %r2, 8
    stxdw [%r1+0], %r2            # HERE
    mov %r0, 0
    exit
