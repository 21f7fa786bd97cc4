/* Parses a number out of a string. */
#include "upatch.h"

SEC("upatch/exe:set_port")
int UPATCH(port, const char *text)
{
	char buf[8] = {};
	unsigned long value = 0;

	if (bpf_probe_read_user_str(buf, sizeof(buf), text) < 2)
		return UPATCH_CONTINUE;
	for (int i = 0; i < sizeof(buf) && buf[i]; i++) {
		if (buf[i] < '0' || buf[i] > '9')
			return upatch_return(ctx, -22);
		value = value * 10 + (buf[i] - '0');
	}
	if (value > 65535)
		return upatch_return(ctx, -34);
	return UPATCH_CONTINUE;
}
