# An errno is a result, not a verdict.
# subject: r0
# must: UPATCH_CONTINUE (0) or UPATCH_RETURN (1)
# known: r0 is the number -14
# hint: upatch_return(ctx, value)
.kind patch
-    mov %r0, -14                # HERE
+    mov %r2, -14
+    stxdw [%r1+80], %r2
+    mov %r0, 1
    exit
