/* The application's length is passed on.
 *
 * subject: r2
 * must: the size of argument 1 of bpf_probe_read_user must have a known upper bound
 * known: r2 is any number
 * hint: compare it
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, const char *text, size_t len)
{
	char buf[64] = {};

#ifdef MENDED
	if (len > sizeof(buf))
		len = sizeof(buf);
#endif
	bpf_probe_read_user(buf, len, text); /* HERE */
	return buf[0] == '$' ? upatch_return(ctx, 0) : UPATCH_CONTINUE;
}
