# One instruction that reads the stack on one path and ctx on the other.
# subject: r1
# must: one instruction must reach the same kind of memory on every path
# known: r1 points
.kind patch
    ldxdw %r2, [%r1+112]
    stdw [%r10-8], 0
    jeq %r2, 0, stack
-    ja use
+    ldxdw %r3, [%r1+112]
+    mov %r0, 0
+    exit
stack:
    mov %r1, %r10
    add %r1, -120
    stdw [%r1+112], 0
use:
    ldxdw %r3, [%r1+112]          # HERE
    mov %r0, 0
    exit
