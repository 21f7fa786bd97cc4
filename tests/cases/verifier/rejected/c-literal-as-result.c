/* A string of the patch is handed to the application: it is gone after revert.
 *
 * subject: r2
 * must: what is written to ctx must be a number
 * known: r2 points to .rodata
 * hint: after revert
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch)
{
#ifdef MENDED
	return upatch_return(ctx, 0);
#else
	return upatch_return(ctx, "patched"); /* HERE */
#endif
}
