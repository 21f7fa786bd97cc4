#include "case.h"

SEC("upatch/exe:f")
int UPATCH(utf8, const char *address, __u64 length)
{
	char text[64];
	long got = upatch_read_text(text, sizeof(text), address, length);

	if (got < 0)
		return upatch_return(ctx, got);
	return upatch_return(ctx, upatch_utf8(text, sizeof(text)));
}
