# An access over two registers.
# subject: ctx->si
# must: the read of 8 bytes must be aligned inside one register
# known: it is at byte 108 of ctx
.kind patch
-    ldxdw %r0, [%r1+108]         # HERE
+    ldxdw %r0, [%r1+104]
    and %r0, 0
    exit
