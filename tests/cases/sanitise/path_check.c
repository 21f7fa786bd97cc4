#include "case.h"

SEC("upatch/exe:f")
int UPATCH(path_check, const char *address)
{
	char path[256];
	long length = upatch_read_str(path, sizeof(path), address);

	if (length < 0)
		return upatch_return(ctx, length);
	return upatch_return(ctx, upatch_path_check(path, sizeof(path)));
}
