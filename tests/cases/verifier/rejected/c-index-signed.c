/* A signed index is only checked from above.
 *
 * subject: r3
 * must: the read of 1 byte must stay inside
 * known: plus a number in i64::MIN..=7
 */
#include "upatch.h"

static const char names[8] = "abcdefg";

SEC("upatch/exe:f")
int UPATCH(patch, long index)
{
#ifdef MENDED
	if (index < 0)
		return UPATCH_CONTINUE;
#endif
	if (index >= 8)
		return UPATCH_CONTINUE;
	return upatch_return(ctx, names[index]); /* HERE */
}
