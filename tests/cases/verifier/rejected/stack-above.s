# An access at the frame pointer belongs to nobody.
# subject: stack fp
# must: must stay inside the 512 bytes of stack
# known: points to stack fp
.kind patch
    mov %r0, 0
-    stxb [%r10+0], %r0           # HERE
+    stxb [%r10-1], %r0
    exit
