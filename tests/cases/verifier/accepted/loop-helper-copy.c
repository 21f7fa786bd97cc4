/* bpf_loop with a struct that indexes grow in. */
#include "upatch.h"
struct s { char in[64]; char out[64]; __u32 n; __u32 o; };
static long step(__u32 i, void *data)
{
	struct s *s = data;
	if (i >= 64 || i >= s->n)
		return 1;
	char c = s->in[i];
	__u32 o = s->o;
	if (c == '%' && i + 2 < 64) {
		c = (s->in[i + 1] & 15) << 4 | (s->in[i + 2] & 15);
	}
	if (o >= 64)
		return 1;
	s->out[o] = c;
	s->o = o + 1;
	return 0;
}
UPATCH_COUNTER(__u64, lens[65]);
SEC("upatch/exe:url")
int UPATCH(url, const char *text)
{
	struct s s = {};
	long n = bpf_probe_read_user_str(s.in, sizeof(s.in), text);
	if (n < 0)
		return UPATCH_CONTINUE;
	s.n = n;
	bpf_loop(64, step, &s, 0);
	if (s.o > 64)
		return UPATCH_CONTINUE;
	UPATCH_INC(lens[s.o]);
	return s.out[0] == '/' ? UPATCH_CONTINUE : upatch_return(ctx, -1);
}
