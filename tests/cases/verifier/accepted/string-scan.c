/* Looks for a byte in a string of the program, read in one go. */
#include "upatch.h"

UPATCH_COUNTER(__u64, refused);

SEC("upatch/exe:open_path")
int UPATCH(no_dollar, const char *path)
{
	char buf[256];
	long n = bpf_probe_read_user_str(buf, sizeof(buf), path);

	if (n < 0)
		return UPATCH_CONTINUE;
	for (int i = 0; i < 256; i++) {
		if (i >= n || !buf[i])
			break;
		if (buf[i] == '$') {
			UPATCH_INC(refused);
			return upatch_return(ctx, -22);
		}
	}
	return UPATCH_CONTINUE;
}
