/* Refuses the call with -14 when the second argument is above 100. */
#include "upatch.h"

UPATCH_COUNTER(__u64, refused);

SEC("upatch/exe:bench_refuse_ours")
int UPATCH(refuse, long a, unsigned long b)
{
	if (b > 100) {
		refused += 1;
		return upatch_return(ctx, -14);
	}
	return UPATCH_CONTINUE;
}
