// refused: `struct pt_regs` has no field `fs_base`
struct pt_regs { unsigned long fs_base; } __attribute__((preserve_access_index));
__attribute__((section("uprobe/exe:f"), used)) int f(struct pt_regs *ctx) { return ctx->fs_base > 7; }
