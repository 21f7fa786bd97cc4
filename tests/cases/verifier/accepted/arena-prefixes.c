/* Allowlist of prefixes in the arena, compared byte by byte with a string of the program. */
#include "upatch.h"
#define ROWS 16
#define WIDTH 32
struct row { __u32 len; char text[WIDTH]; };
UPATCH_RULE(struct row, rows[ROWS]);
UPATCH_RULE(__u32, count);
UPATCH_COUNTER(__u64, by_row[ROWS]);
SEC("upatch/exe:fetch")
int UPATCH(fetch, const char *url)
{
	char buf[64] = {};
	if (bpf_probe_read_user_str(buf, sizeof(buf), url) < 0)
		return UPATCH_CONTINUE;
	for (__u32 r = 0; r < ROWS; r++) {
		if (r >= count)
			break;
		__u32 len = rows[r].len, i;
		if (len > WIDTH)
			continue;
		for (i = 0; i < WIDTH; i++) {
			if (i >= len || rows[r].text[i] != buf[i])
				break;
		}
		if (i == len) {
			UPATCH_INC(by_row[r]);
			return UPATCH_CONTINUE;
		}
	}
	return upatch_return(ctx, -1);
}
