# There is no verdict 2.
# subject: r0
# must: UPATCH_CONTINUE (0) or UPATCH_RETURN (1)
# known: r0 is the number 2
.kind patch
-    mov %r0, 2                  # HERE
+    mov %r0, 0
    exit
