/* A decimal number with a sign, bounded; its digits reversed into a buffer. */
#include "upatch.h"
UPATCH_COUNTER(__u64, lengths[24]);
UPATCH_RULE(long, largest) = 1000;
SEC("upatch/exe:set")
int UPATCH(set, const char *text)
{
	char buf[24], back[24] = {};
	long value = 0;
	int i = 0, negative = 0, n = bpf_probe_read_user_str(buf, sizeof(buf), text);
	if (n <= 1)
		return UPATCH_CONTINUE;
	if (buf[0] == '-')
		negative = 1, i = 1;
	for (; i < 24; i++) {
		char c = buf[i];
		if (c == 0)
			break;
		if (c < '0' || c > '9')
			return upatch_return(ctx, -22);
		value = value * 10 + (c - '0');
		back[23 - i] = c;
	}
	if (n < 24)
		UPATCH_INC(lengths[n]);
	if ((negative ? -value : value) > largest)
		return upatch_return(ctx, -34);
	if (back[23] == '0' && n > 2)
		return upatch_return(ctx, -22);
	return UPATCH_CONTINUE;
}
