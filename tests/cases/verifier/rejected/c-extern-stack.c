/* A local buffer for a function that does not say how much of it it touches.
 *
 * subject: r1
 * must: argument 1 of say must be a pointer of the application
 * known: r1 points to stack fp-16
 * hint: annotated with its size
 */
#include "upatch.h"

extern void say(const char *what) __ksym;

SEC("upatch/exe:f")
int UPATCH(patch, const char *name)
{
	char buf[16] = "hello";

#ifdef MENDED
	say(name);
#else
	say(buf); /* HERE */
#endif
	return buf[3] == 'x' ? upatch_return(ctx, 0) : UPATCH_CONTINUE;
}
