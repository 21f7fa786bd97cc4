/* Counts calls as cheaply as C can: a plain increment, which loses counts under threads (the bench has one). */
#include "upatch.h"

UPATCH_COUNTER(__u64, calls);

SEC("upatch/exe:bench_count_ours")
int UPATCH(count)
{
	calls += 1;
	return UPATCH_CONTINUE;
}
