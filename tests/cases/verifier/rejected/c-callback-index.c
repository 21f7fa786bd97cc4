/* The callback trusts its index.
 *
 * subject: stack fp-16
 * must: the read of 1 byte must stay inside the 512 bytes of stack
 * known: points to fp plus a number in -16..=83
 */
#include "upatch.h"

static long look(__u32 index, void *data)
{
	char *buf = data;

#ifdef MENDED
	if (index >= 16)
		return 1;
#endif
	return buf[index] == 'x'; /* HERE */
}

SEC("upatch/exe:f")
int UPATCH(patch, const char *text)
{
	char buf[16] = {};

	bpf_probe_read_user(buf, sizeof(buf), text);
	if (bpf_loop(100, look, buf, 0) < 16)
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
