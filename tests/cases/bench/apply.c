/* Counts calls of the bench's target. */
#include "upatch.h"

UPATCH_COUNTER(__u64, calls);

SEC("upatch/exe:bench_target")
int UPATCH(apply)
{
	UPATCH_INC(calls);
	return UPATCH_CONTINUE;
}
