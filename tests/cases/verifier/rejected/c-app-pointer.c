/* A pointer of the application is dereferenced directly.
 *
 * subject: r2
 * must: the read of 4 bytes must go through a pointer to known memory
 * known: r2 is any number
 * hint: bpf_probe_read_user()
 */
#include "upatch.h"

struct request {
	int kind;
	int size;
};

SEC("upatch/exe:f")
int UPATCH(patch, struct request *request)
{
	int size = 0;

#ifdef MENDED
	bpf_probe_read_user(&size, sizeof(size), &request->size);
#else
	size = request->size; /* HERE */
#endif
	return size > 4096 ? upatch_return(ctx, -1) : UPATCH_CONTINUE;
}
