/* A program written for maps.
 *
 * subject: bpf_map_lookup_elem
 * must: a call must go to a helper that upatch has
 * known: the kernel's bpf_map_lookup_elem
 * hint: use an arena variable
 */
#include "upatch.h"

static void *(*const map_lookup_elem)(void *map, const void *key) = (void *)1;

SEC("upatch/exe:f")
int UPATCH(patch, int value)
{
#ifndef MENDED
	int key = value;

	if (map_lookup_elem(NULL, &key)) /* HERE */
		return upatch_return(ctx, 0);
#endif
	return UPATCH_CONTINUE;
}
