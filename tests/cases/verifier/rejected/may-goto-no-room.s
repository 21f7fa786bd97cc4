# One iteration alone is more than a run may execute.
# policy: max-steps 100
# subject: the program
# must: a run must execute at most 100 instructions
# known: one iteration with can_loop
.kind patch
    mov %r2, 0
again:
    may_goto out
    mov %r3, 0
inner:
    add %r3, 1                    # HERE
-    jlt %r3, 200, inner
+    jlt %r3, 20, inner
    ja again
out:
    mov %r0, 0
    exit
