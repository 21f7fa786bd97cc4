# Writing the upper half of ax sets no result.
# subject: ctx->ax
# must: ctx->ax must be written
# known: not written on this path
.kind patch
    mov %r0, 1                   # HERE
-    stw [%r1+84], 7
+    stw [%r1+80], 7
    exit
