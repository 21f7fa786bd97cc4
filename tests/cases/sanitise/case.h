/* What the cases share: each judges what its arguments say and leaves what it found in the arena. */
#include "upatch_sanitize.h"

#define FOUND 256
UPATCH_COUNTER(char, found[FOUND]);
UPATCH_COUNTER(__u64, number[2]);

__upatch_body show_next(__u32 index, void *data)
{
	struct __upatch_walk *walk = data;
	char byte = walk->text[index & walk->mask];

	found[index & (FOUND - 1)] = byte;
	return !byte;
}

static __always_inline void show(const char *text, __u32 size)
{
	struct __upatch_walk walk = { .text = text, .mask = size - 1 };

	bpf_loop(size, show_next, &walk, 0);
}
