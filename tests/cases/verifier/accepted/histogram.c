/* A logarithmic histogram in the arena. */
#include "upatch.h"

UPATCH_COUNTER(__u64, sizes[64]);

static unsigned int log2_of(__u64 value)
{
	unsigned int bits = 0;

	for (int i = 5; i >= 0; i--) {
		if (value >> (1 << i)) {
			value >>= 1 << i;
			bits += 1 << i;
		}
	}
	return bits;
}

SEC("upatch/exe:allocate")
int UPATCH(histogram, size_t size)
{
	UPATCH_INC(sizes[log2_of(size) & 63]);
	return UPATCH_CONTINUE;
}
