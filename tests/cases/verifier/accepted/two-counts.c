/* A scan that counts two things: the counts are stored, nothing is decided by them. */
#include "upatch.h"

UPATCH_COUNTER(__u64, spaces);
UPATCH_COUNTER(__u64, digits);

SEC("upatch/exe:line")
int UPATCH(measure, const char *text)
{
	char buf[256];
	__u64 s = 0, d = 0;

	if (bpf_probe_read_user_str(buf, sizeof(buf), text) < 0)
		return UPATCH_CONTINUE;
	for (int i = 0; i < 256; i++) {
		if (!buf[i])
			break;
		if (buf[i] == ' ')
			s++;
		else if (buf[i] >= '0' && buf[i] <= '9')
			d++;
	}
	UPATCH_ADD(spaces, s);
	UPATCH_ADD(digits, d);
	return UPATCH_CONTINUE;
}
