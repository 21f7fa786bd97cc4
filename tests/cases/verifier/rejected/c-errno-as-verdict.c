/* The function's result is returned as the verdict.
 *
 * subject: r0
 * must: a patch must return UPATCH_CONTINUE (0) or UPATCH_RETURN (1)
 * known: the number 4294967282
 * hint: upatch_return(ctx, value)
 */
#include "upatch.h"

UPATCH_COUNTER(__u64, large);

SEC("upatch/exe:f")
int patch(struct pt_regs *ctx)
{
	UPATCH_INC(large);
#ifdef MENDED
	return upatch_return(ctx, -14);
#else
	return -14; /* HERE */
#endif
}
