/* NULL for a function that does not take it.
 *
 * subject: r1
 * must: argument 1 of lookup must not be null
 * known: r1 is the number 0
 * hint: __nullable
 */
#include "upatch.h"

#ifdef MENDED
extern int lookup(void *table __nullable, int key) __ksym;
#else
extern int lookup(void *table, int key) __ksym;
#endif

SEC("upatch/exe:f")
int UPATCH(patch, int key)
{
	if (lookup(NULL, key)) /* HERE */
		return upatch_return(ctx, 0);
	return UPATCH_CONTINUE;
}
