#include "case.h"

SEC("upatch/exe:f")
int UPATCH(path_refuse, const char *address)
{
	char path[256];
	long length = upatch_read_str(path, sizeof(path), address);

	length = upatch_path_normalize(path, sizeof(path), length, UPATCH_DOTDOT_REFUSE);
	if (length >= 0)
		show(path, sizeof(path));
	return upatch_return(ctx, length);
}
