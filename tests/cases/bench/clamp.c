/* Lowers the second argument to 100 and counts how often. */
#include "upatch.h"

UPATCH_COUNTER(__u64, clamped);

SEC("upatch/exe:bench_clamp_ours")
int UPATCH(clamp, long a, unsigned long b)
{
	if (b > 100) {
		clamped += 1;
		PT_REGS_PARM2(ctx) = 100;
	}
	return UPATCH_CONTINUE;
}
