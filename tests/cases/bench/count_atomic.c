/* Counts calls exactly, with a locked increment. */
#include "upatch.h"

UPATCH_COUNTER(__u64, calls);

SEC("upatch/exe:bench_count_atomic_ours")
int UPATCH(count_atomic)
{
	UPATCH_INC(calls);
	return UPATCH_CONTINUE;
}
