/* No target: the command line names it. */
#include "upatch.h"

SEC("upatch")
int UPATCH(f, int a)
{
	return a > 3 ? upatch_return(ctx, a) : UPATCH_CONTINUE;
}
