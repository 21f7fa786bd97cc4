/* A list in the arena, walked as long as the budget lasts. */
#include "upatch.h"

struct entry {
	struct entry __arena *next;
	__u64 key;
	__u64 hits;
};

struct entry __arena *first;
struct entry __arena pool[32];

SEC("upatch/exe:lookup")
int UPATCH(find, __u64 key)
{
	for (struct entry __arena *e = first; e && can_loop; e = e->next) {
		if (e->key == key) {
			__sync_fetch_and_add(&e->hits, 1);
			return upatch_return(ctx, 0);
		}
	}
	return UPATCH_CONTINUE;
}
