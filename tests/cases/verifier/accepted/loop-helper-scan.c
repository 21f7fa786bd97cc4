/* bpf_loop over a buffer, the callback's findings in a struct on the stack. */
#include "upatch.h"

struct scan {
	char buf[128];
	__u32 len;
	__u32 spaces;
	long found;
};

static long step(__u32 index, void *data)
{
	struct scan *s = data;

	if (index >= sizeof(s->buf) || index >= s->len)
		return 1;
	if (s->buf[index] == ' ')
		s->spaces++;
	if (s->buf[index] == '%') {
		s->found = index;
		return 1;
	}
	return 0;
}

SEC("upatch/exe:format")
int UPATCH(scan, const char *format)
{
	struct scan s = { .found = -1 };
	long n = bpf_probe_read_user_str(s.buf, sizeof(s.buf), format);

	if (n <= 0)
		return UPATCH_CONTINUE;
	s.len = n;
	bpf_loop(sizeof(s.buf), step, &s, 0);
	if (s.found >= 0 && s.spaces < 5)
		return upatch_return(ctx, -1);
	return UPATCH_CONTINUE;
}
