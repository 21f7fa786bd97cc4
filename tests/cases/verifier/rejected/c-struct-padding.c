/* The padding of a struct is passed to the application.
 *
 * subject: stack fp-15
 * must: stack bytes must be written before they are read
 * known: fp-15 was never written
 * hint: padding
 */
#include "upatch.h"

struct record {
	char kind;
	long value;
};

extern long write_log(int level, const void *bytes, size_t count __sz) __ksym;

SEC("upatch/exe:f")
int UPATCH(patch, long value)
{
	struct record r;

#ifdef MENDED
	__builtin_memset(&r, 0, sizeof(r));
#endif
	r.kind = 1;
	r.value = value;
	write_log(1, &r, sizeof(r)); /* HERE */
	return UPATCH_CONTINUE;
}
