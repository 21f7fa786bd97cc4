/* bpf_loop as often as the application says.
 *
 * subject: r1
 * must: the iterations of bpf_loop must fit into the budget
 * known: at most 8388608 iterations
 * hint: limit the number of iterations
 */
#include "upatch.h"

UPATCH_COUNTER(__u64, sum);

static long add(__u32 index, void *data)
{
	UPATCH_ADD(sum, index);
	return 0;
}

SEC("upatch/exe:f")
int UPATCH(patch, unsigned int n)
{
#ifdef MENDED
	if (n > 1000)
		n = 1000;
#endif
	bpf_loop(n, add, NULL, 0); /* HERE */
	return UPATCH_CONTINUE;
}
