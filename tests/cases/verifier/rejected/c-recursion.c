/* A function that calls itself.
 *
 * subject: depth
 * must: functions must not call themselves
 * known: depth is already running in this chain of calls
 * hint: write it as a loop
 */
#include "upatch.h"

static __noinline long depth(long n)
{
	volatile long rest = n;

	if (n <= 0)
		return 0;
#ifdef MENDED
	return rest + 1;
#else
	return depth(rest - 1) + rest; /* HERE */
#endif
}

SEC("upatch/exe:f")
int UPATCH(patch, int n)
{
	return depth(n) > 3 ? upatch_return(ctx, 0) : UPATCH_CONTINUE;
}
