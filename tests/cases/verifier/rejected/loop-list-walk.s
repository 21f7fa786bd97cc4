# A list in the arena may be circular.
# subject: the loop
# must: every path must come to an end
# known: come back to the same state
# hint: can_loop
.kind patch
.arena 4096
.global head 0 8
    lddw %r2, head
    addr_space_cast %r2, %r2, 1
again:
+    may_goto out
    ldxdw %r2, [%r2+0]            # HERE
    addr_space_cast %r2, %r2, 1
    jne %r2, 0, again
out:
    mov %r0, 0
    exit
