/* The address of a local variable is published.
 *
 * subject: r2
 * must: what is stored in the arena must be a number or an arena pointer
 * known: points to stack
 * hint: means nothing there
 */
#include "upatch.h"

__u64 __arena where;

SEC("upatch/exe:f")
int UPATCH(patch, long value)
{
	volatile long local = value;

#ifdef MENDED
	where = local;
#else
	where = (__u64)&local; /* HERE */
#endif
	return UPATCH_CONTINUE;
}
