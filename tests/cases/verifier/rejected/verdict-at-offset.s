# Only a patch at an entry can end the call.
# subject: r0
# must: a patch inside a function must return UPATCH_CONTINUE (0)
# known: r0 is the number 1
.kind patch_offset
    mov %r2, 0
    stxdw [%r1+80], %r2
-    mov %r0, 1                  # HERE
+    mov %r0, 0
    exit
