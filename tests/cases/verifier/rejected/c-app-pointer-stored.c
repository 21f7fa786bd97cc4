/* The application's memory is written directly.
 *
 * policy: allow-write
 * subject: r1
 * must: the write of 4 bytes must go through a pointer to known memory
 * known: r1 is any number
 * hint: bpf_probe_write_user()
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, int *limit)
{
#ifdef MENDED
	int zero = 0;

	bpf_probe_write_user(limit, &zero, sizeof(zero));
#else
	*limit = 0; /* HERE */
#endif
	return UPATCH_CONTINUE;
}
