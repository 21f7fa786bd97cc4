/* A patch inside a function can't end the call.
 *
 * subject: r0
 * must: a patch inside a function must return UPATCH_CONTINUE (0)
 * known: r0 is the number 1
 */
#include "upatch.h"

SEC("upatch/exe:f+0x10")
int fix(struct pt_regs *ctx)
{
	ctx->rax = 0;
#ifdef MENDED
	return UPATCH_CONTINUE;
#else
	return UPATCH_RETURN; /* HERE */
#endif
}
