# ctx is not memory: its offset is constant.
# subject: r1
# must: ctx must only be accessed at constant offsets
# known: r2 is a number in 0..=7
.kind patch
    ldxdw %r2, [%r1+112]
-    and %r2, 7
+    mov %r2, 8
    add %r1, %r2                  # HERE
    ldxdw %r0, [%r1+0]
    and %r0, 0
    exit
