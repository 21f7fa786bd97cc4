# A bounded loop beyond the analysis budget.
# policy: max-visits 20000
# subject: the analysis
# must: every path must be proven safe within the analysis budget
# known: the proof is too complex
.kind patch
    mov %r2, 0
again:
    add %r2, 1                    # HERE
-    jlt %r2, 100000, again
+    jlt %r2, 1000, again
    mov %r0, 0
    exit
