#include "case.h"

SEC("upatch/exe:f")
int UPATCH(path_check_at, const char *address)
{
	return upatch_return(ctx, upatch_path_check_at(address));
}
