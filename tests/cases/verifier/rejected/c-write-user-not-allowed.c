/* The application's memory is written without permission.
 *
 * subject: bpf_probe_write_user
 * must: a patch must not write the program's memory unless that is allowed
 * known: bpf_probe_write_user writes it
 * hint: --allow-write
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, int *limit)
{
	int zero = 0;

#ifdef MENDED
	bpf_probe_read_user(&zero, sizeof(zero), limit);
#else
	bpf_probe_write_user(limit, &zero, sizeof(zero)); /* HERE */
#endif
	return UPATCH_CONTINUE;
}
