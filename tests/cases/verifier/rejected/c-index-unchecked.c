/* An argument is used as an index without a check.
 *
 * subject: r3
 * must: the read of 1 byte must stay inside the 512 bytes of stack
 * known: points to fp plus any number
 * hint: compare the index with the size
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch, unsigned long index)
{
	volatile char table[16] = {};

#ifdef MENDED
	if (index >= sizeof(table))
		return UPATCH_CONTINUE;
#endif
	if (table[index]) /* HERE */
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
