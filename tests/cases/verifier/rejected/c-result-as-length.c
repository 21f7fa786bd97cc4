/* The result of a read is a length only when it is not negative.
 *
 * subject: r7
 * must: the write of 1 byte must stay inside the 512 bytes of stack
 * known: r7 points to fp plus a number in -4127..=0
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, const char *text)
{
	char buf[32];
	long n = bpf_probe_read_user_str(buf, sizeof(buf), text);

#ifdef MENDED
	if (n < 0 || n >= (long)sizeof(buf))
		return UPATCH_CONTINUE;
#endif
	buf[n] = 'x'; /* HERE */
	return buf[0] == 'x' ? upatch_return(ctx, 0) : UPATCH_CONTINUE;
}
