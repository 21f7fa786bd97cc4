# Nested loops that share one budget.
.kind patch
    mov %r6, 0
outer:
    may_goto out
    mov %r7, 0
inner:
    may_goto next
    add %r7, 1
    jlt %r7, 1000, inner
next:
    add %r6, 1
    ja outer
out:
    mov %r0, 0
    exit
