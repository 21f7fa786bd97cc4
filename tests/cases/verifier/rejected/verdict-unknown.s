# A verdict that may be anything.
# subject: r0
# must: UPATCH_CONTINUE (0) or UPATCH_RETURN (1)
# known: any number
.kind patch
    ldxdw %r0, [%r1+112]         # HERE
+    and %r0, 0
    exit
