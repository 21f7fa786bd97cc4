/* An arena pointer that was read from the arena is passed to a helper.
 *
 * subject: arena
 * must: must be memory of known place and size
 * known: an arena pointer whose offset is not known
 * hint: pass the address of an arena variable
 */
#include "upatch.h"

char __arena buffer[64];
char __arena *current;

SEC("upatch/exe:f")
int UPATCH(patch, const char *text)
{
#ifdef MENDED
	char __arena *to = buffer;
#else
	char __arena *to = current;
#endif
	bpf_probe_read_user((void *)to, 64, text); /* HERE */
	return UPATCH_CONTINUE;
}
