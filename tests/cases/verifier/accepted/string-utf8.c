/* A state machine over a bounded string on the stack: well-formed UTF-8, control characters counted. */
#include "upatch.h"
#define MAX 128
UPATCH_COUNTER(__u64, bad);
UPATCH_COUNTER(__u64, classes[5]);
static __attribute__((always_inline)) int check_text(const unsigned char *s, int n)
{
	__u32 need = 0, low = 0x80, high = 0xbf;
	for (int i = 0; i < MAX; i++) {
		if (i >= n)
			break;
		unsigned char c = s[i];
		if (need) {
			if (c < low || c > high)
				return 0;
			low = 0x80, high = 0xbf;
			need--;
		} else if (c >= 0x80) {
			if (c < 0xc2 || c > 0xf4)
				return 0;
			need = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
			if (c == 0xe0)
				low = 0xa0;
			if (c == 0xed)
				high = 0x9f;
			if (c == 0xf0)
				low = 0x90;
			if (c == 0xf4)
				high = 0x8f;
		} else if (c < 0x20 && c != '\t')
			return 0;
		UPATCH_INC(classes[need]);
	}
	return need == 0;
}
SEC("upatch/exe:say")
int UPATCH(say, const char *text)
{
	unsigned char buf[MAX];
	long n = bpf_probe_read_user_str(buf, sizeof(buf), text);
	if (n <= 0)
		return UPATCH_CONTINUE;
	if (check_text(buf, n - 1))
		return UPATCH_CONTINUE;
	UPATCH_INC(bad);
	return upatch_return(ctx, -1);
}
