# A probe only reads.
# subject: ctx->di
# must: must be one that this kind of program may write
# known: a probe (SEC("uprobe/…")) only reads ctx
# hint: SEC("upatch/module:function")
.kind probe
    mov %r0, 0
-    stxdw [%r1+112], %r0         # HERE
+    ldxdw %r0, [%r1+112]
    exit
