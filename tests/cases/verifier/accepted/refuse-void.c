/* A function without a result is skipped. */
#include "upatch.h"

UPATCH_RULE(__u32, off);

SEC("upatch/exe:log_line")
int UPATCH(quiet, int level)
{
	if (off && level > 2)
		return UPATCH_RETURN_VOID(ctx);
	return UPATCH_CONTINUE;
}
