/* The loop is bounded, but by far too much.
 *
 * policy: max-visits 30000
 * subject: the analysis
 * must: every path must be proven safe within the analysis budget
 * known: the proof is too complex
 * hint: bpf_loop()
 */
#include "upatch.h"

UPATCH_COUNTER(__u64, sum);

#ifdef MENDED
#define MOST 100
#else
#define MOST 1000000
#endif

SEC("upatch/exe:f")
int UPATCH(patch, unsigned int n)
{
	for (unsigned int i = 0; i < MOST; i++) { /* HERE */
		if (i == n)
			break;
		UPATCH_ADD(sum, i);
	}
	return UPATCH_CONTINUE;
}
