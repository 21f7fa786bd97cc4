/* Two large frames at once.
 *
 * subject: the stack
 * must: a chain of calls must use at most 512 bytes of stack
 * known: patch (
 * hint: arena variables
 */
#include "upatch.h"

#ifdef MENDED
#define SIZE 128
#else
#define SIZE 300
#endif

static __noinline int inner(const char *text)
{
	char buf[SIZE];

	bpf_probe_read_user(buf, sizeof(buf), text);
	return buf[17];
}

SEC("upatch/exe:f")
int UPATCH(patch, const char *text)
{
	char buf[SIZE];

	bpf_probe_read_user(buf, sizeof(buf), text);
	if (inner(text) == buf[3]) /* HERE */
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
