# No atomics on registers.
# subject: ctx->di
# must: ctx must be read and written by plain loads and stores
# known: ctx->di is accessed atomically
.kind patch
    mov %r0, 0
    mov %r2, 1
-    lock add [%r1+112], %r2      # HERE
+    ldxdw %r3, [%r1+112]
+    add %r3, 1
+    stxdw [%r1+112], %r3
    exit
