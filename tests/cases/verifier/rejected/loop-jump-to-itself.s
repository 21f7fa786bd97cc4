# A jump to itself.
# subject: the loop
# must: every path must come to an end
# known: this loop can come back to the same state
.kind patch
    mov %r0, 0
-again:
-    ja again                     # HERE
    exit
