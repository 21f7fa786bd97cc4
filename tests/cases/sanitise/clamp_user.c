#include "case.h"

SEC("upatch/exe:f")
int UPATCH(clamp_user, size_t *length, __u64 most)
{
	return upatch_return(ctx, upatch_clamp_user(length, size_t, 1, most));
}
