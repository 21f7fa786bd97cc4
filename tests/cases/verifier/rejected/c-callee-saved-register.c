/* A register that the caller relies on is changed.
 *
 * subject: ctx->bx
 * must: a register of ctx must be one that this kind of program may write
 * known: ctx->bx is written
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch)
{
#ifdef MENDED
	ctx->rdi = 0;
#else
	ctx->rbx = 0; /* HERE */
#endif
	return UPATCH_CONTINUE;
}
