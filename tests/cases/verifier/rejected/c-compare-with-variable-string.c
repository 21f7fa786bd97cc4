/* The string to compare with comes from the stack.
 *
 * subject: r3
 * must: argument 3 of bpf_strncmp must be a constant string
 * known: r3 points to stack fp-32
 * hint: pass a string literal
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, const char *one, const char *two)
{
	char a[16] = {}, b[16] = {};

	bpf_probe_read_user_str(a, sizeof(a), one);
	bpf_probe_read_user_str(b, sizeof(b), two);
#ifdef MENDED
	if (!bpf_strncmp(a, sizeof(a), "quit"))
#else
	if (!bpf_strncmp(a, sizeof(a), b)) /* HERE */
#endif
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
