# 64-bit multiplication wraps: nothing is known of the product.
# subject: r3
# must: the write of 1 byte must stay inside
# known: points to fp plus a number
.kind patch
    ldxdw %r2, [%r1+112]
+    and %r2, 7
    mul %r2, 8
    mov %r3, %r10
    add %r3, -64
    add %r3, %r2
    stb [%r3+0], 0                # HERE
    mov %r0, 0
    exit
