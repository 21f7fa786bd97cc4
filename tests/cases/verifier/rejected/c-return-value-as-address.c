/* A buffer on the stack is handed to the application.
 *
 * subject: r2
 * must: what is written to ctx must be a number
 * known: points to stack fp-16
 * hint: gone after the call
 */
#include "upatch.h"

SEC("upatch/exe:f")
int UPATCH(patch)
{
	char text[16] = "nothing to see";

#ifdef MENDED
	return upatch_return(ctx, 0);
#else
	return upatch_return(ctx, text); /* HERE */
#endif
}
