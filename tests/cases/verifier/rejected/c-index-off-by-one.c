/* `>` where `>=` is meant: the arena global is guarded by the window, but a string table is not.
 *
 * subject: .rodata.cst8
 * must: the read of 1 byte must stay inside the 8 bytes of `.rodata.cst8`
 * known: points to .rodata.cst8 plus a number in 0..=8
 */
#include "upatch.h"

static const unsigned char steps[8] = { 1, 2, 3, 5, 8, 13, 21, 34 };

SEC("upatch/exe:f")
int UPATCH(patch, unsigned long index)
{
#ifdef MENDED
	if (index >= sizeof(steps))
#else
	if (index > sizeof(steps))
#endif
		return UPATCH_CONTINUE;
	return upatch_return(ctx, steps[index]); /* HERE */
}
