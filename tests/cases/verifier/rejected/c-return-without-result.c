/* The call is ended without a result.
 *
 * subject: ctx->ax
 * must: ctx->ax must be written on every path that returns UPATCH_RETURN
 * known: ctx->ax was not written on this path
 */
#include "upatch.h"

SEC("upatch/exe:f")
int patch(struct pt_regs *ctx)
{
#ifdef MENDED
	return upatch_return(ctx, 0);
#else
	return UPATCH_RETURN; /* HERE */
#endif
}
