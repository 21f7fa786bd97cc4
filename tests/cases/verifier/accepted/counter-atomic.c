/* The way it is meant. */
#include "upatch.h"

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u32, small[4]);

SEC("upatch/exe:f")
int UPATCH(count, unsigned int kind)
{
	UPATCH_INC(hits);
	UPATCH_ADD(small[kind & 3], 2);
	return UPATCH_CONTINUE;
}
