/* In the middle of a function any general register may be changed. */
#include "upatch.h"

SEC("upatch/exe:compute+0x20")
int fix(struct pt_regs *ctx)
{
	if (ctx->rbx > 4096)
		ctx->rbx = 4096;
	ctx->r15 &= ~7ul;
	return UPATCH_CONTINUE;
}
