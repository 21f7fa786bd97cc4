/* A list of the application is followed without a bound.
 *
 * subject: the loop
 * must: every path must come to an end
 * known: this loop can come back to the same state
 * hint: can_loop
 */
#include "upatch.h"

#ifdef MENDED
#define AND_MORE &&can_loop
#else
#define AND_MORE
#endif

SEC("upatch/exe:f")
int UPATCH(patch, void *list)
{
	void *next = list;

	while (next AND_MORE) { /* HERE */
		if (bpf_probe_read_user(&next, sizeof(next), next))
			return UPATCH_CONTINUE;
	}
	return upatch_return(ctx, 0);
}
