# One iteration inside a callback is more than a run may execute.
# policy: max-steps 200
# subject: the program
# must: a run must execute at most 200 instructions
# known: one iteration with can_loop
.kind patch
    mov %r1, 2
    lddw %r2, func body
    mov %r3, 0
    mov %r4, 0
    call bpf_loop
    mov %r0, 0
    exit
body:
    mov %r2, 0
again:
    may_goto out
    mov %r3, 0
inner:
    add %r3, 1                    # HERE
-    jlt %r3, 150, inner
+    jlt %r3, 20, inner
    ja again
out:
    mov %r0, 0
    exit
