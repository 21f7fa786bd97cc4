/* A callback that returns a count.
 *
 * subject: r0
 * must: a callback must return 0 (go on) or 1 (stop)
 * known: r0 is a number in 0..=9
 */
#include "upatch.h"

static long visit(__u32 index, void *data)
{
#ifdef MENDED
	return index > 5;
#else
	return index; /* HERE */
#endif
}

SEC("upatch/exe:f")
int UPATCH(patch)
{
	if (bpf_loop(10, visit, NULL, 0) < 5)
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
