# A function that calls itself.
# subject: f
# must: functions must not call themselves
# known: f is already running in this chain of calls
# hint: write it as a loop
.kind patch
    mov %r1, 3
    call local f
    mov %r0, 0
    exit
f:
    mov %r0, 0
    jeq %r1, 0, +2
    add %r1, -1
-    call local f                 # HERE
+    mov %r0, 0
    exit
