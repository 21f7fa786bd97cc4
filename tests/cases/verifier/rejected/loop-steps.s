# Provable, but longer than a run may be.
# policy: max-steps 1000
# subject: the program
# must: a run must execute at most 1000 instructions
# known: its longest path executes
.kind patch
    mov %r2, 0
again:
    add %r2, 1                    # HERE
-    jlt %r2, 2000, again
+    jlt %r2, 200, again
    mov %r0, 0
    exit
