# Three frames that together are more than 512 bytes.
# subject: the stack
# must: a chain of calls must use at most 512 bytes of stack
# known: main (200), f (200), g (200) use 600 together
.kind patch
    stdw [%r10-200], 0
    call local f
    mov %r0, 0
    exit
f:
    stdw [%r10-200], 0
    call local g                  # HERE
    exit
g:
-    stdw [%r10-200], 0
+    stdw [%r10-104], 0
    mov %r0, 0
    exit
