#include "case.h"

SEC("upatch/exe:f")
int UPATCH(parse_s64, const char *address, __s64 least, __s64 most)
{
	char text[32];
	long flaw = upatch_read_str(text, sizeof(text), address);
	__s64 value = 0;

	if (flaw < 0)
		return upatch_return(ctx, flaw);
	flaw = upatch_parse_s64(text, sizeof(text), 10, least, most, &value);
	number[0] = value;
	return upatch_return(ctx, flaw);
}
