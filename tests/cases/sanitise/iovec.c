#include "case.h"

SEC("upatch/exe:f")
int UPATCH(iovec, const void *address, long count)
{
	struct upatch_iovecs iovecs;
	long flaw = upatch_iovec_sum(address, count, &iovecs);

	number[0] = iovecs.sum;
	number[1] = iovecs.longest;
	return upatch_return(ctx, flaw);
}
