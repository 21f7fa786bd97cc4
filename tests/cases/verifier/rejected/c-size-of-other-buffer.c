/* The size of the larger buffer for the smaller one.
 *
 * subject: r2
 * must: the write of 64 bytes must stay inside the 512 bytes of stack
 * known: r2 is a number in 0..=64
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, const char *text, size_t len)
{
	char small[16] = {};

#ifdef MENDED
	if (len > sizeof(small))
#else
	if (len > 64)
#endif
		return UPATCH_CONTINUE;
	bpf_probe_read_user(small, len, text); /* HERE */
	return small[0] == '$' ? upatch_return(ctx, 0) : UPATCH_CONTINUE;
}
