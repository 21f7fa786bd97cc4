/* Signed arguments of every width, checked the C way, used as an index. */
#include "upatch.h"

UPATCH_COUNTER(__u64, by_level[8]);

SEC("upatch/exe:log")
int UPATCH(levels, int level, short narrow, signed char tiny)
{
	if (level < 0 || level >= 8)
		return UPATCH_CONTINUE;
	UPATCH_INC(by_level[level]);
	if (narrow >= 0 && narrow < 8)
		UPATCH_INC(by_level[narrow]);
	if (tiny >= 0 && tiny < 8)
		UPATCH_INC(by_level[tiny]);
	return UPATCH_CONTINUE;
}
