# An access that is not aligned to its size.
# subject: ctx->di
# must: must be aligned inside one register of ctx
# known: it is at byte 113 of ctx
.kind patch
-    ldxw %r0, [%r1+113]          # HERE
+    ldxw %r0, [%r1+116]
    and %r0, 0
    exit
