# Nothing that the condition depends on changes.
# subject: the loop
# must: every path must come to an end
# known: this loop can come back to the same state
.kind patch
    mov %r0, 0
    ldxdw %r2, [%r1+112]
+    mov %r3, 0
again:
+    add %r3, 1
+    jge %r3, 10, out
    jeq %r2, 5, again             # HERE
out:
    exit
