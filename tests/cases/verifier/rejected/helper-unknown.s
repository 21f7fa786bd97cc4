# No such helper.
# subject: helper 4711
# must: a call must go to a helper that upatch has
# known: there is no helper 4711
.kind patch
-    call 4711                    # HERE
+    call 5
    mov %r0, 0
    exit
