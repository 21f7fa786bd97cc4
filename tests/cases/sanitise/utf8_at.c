#include "case.h"

SEC("upatch/exe:f")
int UPATCH(utf8_at, const char *address, __u64 length)
{
	return upatch_return(ctx, upatch_utf8_at(address, length));
}
