# ctx has 168 bytes.
# subject: ctx+168
# must: must stay inside the 168 bytes of struct pt_regs
# known: r1 points to ctx, and the access is at +168
.kind patch
-    ldxdw %r0, [%r1+168]         # HERE
+    ldxdw %r0, [%r1+160]
    and %r0, 0
    exit
