#include "case.h"

/* base: 2, 8, 10, 16 or 36 */
SEC("upatch/exe:f")
int UPATCH(parse_u64, const char *address, __u32 base, __u64 most)
{
	char text[128];
	long flaw = upatch_read_str(text, sizeof(text), address);
	__u64 value = 0;

	if (flaw < 0)
		return upatch_return(ctx, flaw);
	if (base == 2)
		flaw = upatch_parse_u64(text, sizeof(text), 2, most, &value);
	else if (base == 8)
		flaw = upatch_parse_u64(text, sizeof(text), 8, most, &value);
	else if (base == 10)
		flaw = upatch_parse_u64(text, sizeof(text), 10, most, &value);
	else if (base == 16)
		flaw = upatch_parse_u64(text, sizeof(text), 16, most, &value);
	else
		flaw = upatch_parse_u64(text, sizeof(text), 36, most, &value);
	number[0] = value;
	return upatch_return(ctx, flaw);
}
