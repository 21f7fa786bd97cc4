#include "case.h"

UPATCH_RULE(__u64, longest) = 0x10000;

/* An int, an unsigned int, a size_t, a signed char; a bit in `number` for each that was changed. */
SEC("upatch/exe:f")
int UPATCH(clamp_arg)
{
	__u64 changed = 0;

	if (upatch_clamp_arg(ctx, 1, int, -5, 1000))
		changed |= 1;
	if (upatch_clamp_arg(ctx, 2, unsigned int, 16, 4096))
		changed |= 2;
	if (upatch_clamp_arg(ctx, 3, size_t, 0, longest))
		changed |= 4;
	if (upatch_clamp_arg(ctx, 4, signed char, -100, 100))
		changed |= 8;
	number[0] = changed;
	return UPATCH_CONTINUE;
}
