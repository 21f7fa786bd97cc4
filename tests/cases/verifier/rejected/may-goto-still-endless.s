# may_goto stands beside the loop, not in it.
# subject: the loop
# must: every path must come to an end
# known: come back to the same state
.kind patch
    ldxdw %r2, [%r1+112]
again:
-    may_goto over                # HERE
+    may_goto out
over:
    jne %r2, 0, again
out:
    mov %r0, 0
    exit
