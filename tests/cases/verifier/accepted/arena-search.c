/* A sorted table of rules in the arena, searched by halving; an open-addressed hash set beside it. */
#include "upatch.h"
#define N 1000
UPATCH_RULE(__u32, sorted[N]);
UPATCH_RULE(__u32, used);
UPATCH_RULE(__u64, slots[256]);
UPATCH_COUNTER(__u64, hits[N]);
SEC("upatch/exe:lookup")
int UPATCH(lookup, __u32 key)
{
	__u32 low = 0, high = used;
	if (high > N)
		high = N;
	for (int i = 0; i < 12 && low < high; i++) {
		__u32 middle = (low + high) / 2;
		if (middle >= N)
			break;
		__u32 value = sorted[middle];
		if (value == key) {
			UPATCH_INC(hits[middle]);
			return upatch_return(ctx, -1);
		}
		if (value < key)
			low = middle + 1;
		else
			high = middle;
	}
	__u64 hash = key * 0x9e3779b1u;
	for (int i = 0; i < 16; i++) {
		__u64 at = (hash + i) & 255;
		if (slots[at] == key)
			return upatch_return(ctx, -2);
		if (!slots[at])
			break;
	}
	hash = hash % N;
	UPATCH_INC(hits[hash]);
	return UPATCH_CONTINUE;
}
