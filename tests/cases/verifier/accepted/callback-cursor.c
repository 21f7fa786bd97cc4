/* A callback that keeps a cursor of its own in its context. */
#include "upatch.h"

struct cursor {
	unsigned int at;
	unsigned int words;
	char buf[100];
};

static long step(__u32 index, void *data)
{
	struct cursor *c = data;

	if (c->at >= sizeof(c->buf))
		return 1;
	if (c->buf[c->at] == ' ')
		c->words++;
	c->at++;
	return 0;
}

SEC("upatch/exe:line")
int UPATCH(words, const char *text)
{
	struct cursor c = {};

	if (bpf_probe_read_user_str(c.buf, sizeof(c.buf), text) < 0)
		return UPATCH_CONTINUE;
	bpf_loop(1000, step, &c, 0);
	if (c.at > 10 && c.words > 5)
		return upatch_return(ctx, c.at);
	return UPATCH_CONTINUE;
}
