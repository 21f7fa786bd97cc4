/* A buffer is compared that nothing was read into.
 *
 * subject: stack fp-16
 * must: stack bytes must be written before they are read
 * known: fp-16 was never written on this path
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, const char *name)
{
	char buf[16];

#ifdef MENDED
	bpf_probe_read_user_str(buf, sizeof(buf), name);
#endif
	if (!bpf_strncmp(buf, sizeof(buf), "shutdown")) /* HERE */
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
