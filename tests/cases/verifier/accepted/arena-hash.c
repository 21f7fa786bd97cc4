/* An open hash in an arena array; the last entry is taken by compare and exchange. */
#include "upatch.h"

struct cell {
	__u64 key;
	__u64 count;
};

struct cell __arena cells[256];
UPATCH_COUNTER(__u64, lost);

SEC("upatch/exe:hit")
int UPATCH(hash, __u64 key)
{
	__u64 h = key * 0x9e3779b97f4a7c15ull >> 56;

	for (int i = 0; i < 8; i++) {
		struct cell __arena *c = &cells[(h + i) & 255];
		__u64 old = c->key;

		if (!old)
			old = __sync_val_compare_and_swap(&c->key, 0, key);
		if (!old || old == key) {
			__sync_fetch_and_add(&c->count, 1);
			return UPATCH_CONTINUE;
		}
	}
	UPATCH_INC(lost);
	return UPATCH_CONTINUE;
}
