/* Decisions on several arguments of several widths. */
#include "upatch.h"

UPATCH_RULE(__u32, longest) = 60;
UPATCH_COUNTER(__u64, seen[4]);

SEC("upatch/exe:set")
int UPATCH(decide, unsigned int flags, int seconds, unsigned char kind, bool urgent)
{
	unsigned int at = 0;

	if (kind > 3)
		return UPATCH_CONTINUE;
	if (flags & 4) {
		if (seconds < -1 || seconds > (int)longest) {
			at = 1;
			if (urgent)
				return upatch_return(ctx, -1);
			PT_REGS_PARM2(ctx) = longest;
		} else if (seconds == -1) {
			at = 2;
		}
	} else if (flags & 8) {
		at = kind;
	}
	UPATCH_INC(seen[at]);
	return UPATCH_CONTINUE;
}
