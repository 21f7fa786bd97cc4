/* An own definition of pt_regs, with other offsets: CO-RE relocations give it ours. */
struct pt_regs {
	unsigned long di;
	unsigned long ax;
} __attribute__((preserve_access_index));

__attribute__((section("upatch/exe:f"), used)) int f(struct pt_regs *ctx)
{
	if (ctx->di < 100)
		return 0;
	ctx->ax = -1;
	return 1;
}
