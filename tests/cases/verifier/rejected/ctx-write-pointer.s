# The application must not get a pointer to the patch's stack.
# subject: r10
# must: what is written to ctx must be a number
# known: r10 points to stack fp
# hint: gone after the call
.kind patch
    mov %r0, 0
-    stxdw [%r1+112], %r10        # HERE
+    stxdw [%r1+112], %r0
    exit
