/* The smallest patch that changes something: an argument is clamped. */
#include "upatch.h"

SEC("upatch/exe:sleep_for")
int UPATCH(clamp, int seconds)
{
	if (seconds > 60)
		PT_REGS_PARM1(ctx) = 60;
	return UPATCH_CONTINUE;
}
