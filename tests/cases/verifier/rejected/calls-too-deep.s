# Nine functions active at once.
# subject: f8
# must: at most 8 functions must be active at once
# known: 8 are
.kind patch
    call local f1
    mov %r0, 0
    exit
f1:
    call local f2
    exit
f2:
    call local f3
    exit
f3:
    call local f4
    exit
f4:
    call local f5
    exit
f5:
    call local f6
    exit
f6:
    call local f7
    exit
f7:
    mov %r0, 0
-    call local f8                # HERE
    exit
f8:
    mov %r0, 0
    exit
