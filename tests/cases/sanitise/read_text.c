#include "case.h"

SEC("upatch/exe:f")
int UPATCH(read_text, const char *address, __u64 length)
{
	char text[16];
	long got = upatch_read_text(text, sizeof(text), address, length);

	if (got >= 0)
		show(text, sizeof(text));
	return upatch_return(ctx, got);
}
