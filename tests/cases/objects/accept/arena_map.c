/* A map of type arena is the arena's size. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "upatch.h"

struct {
	__uint(type, 33 /* BPF_MAP_TYPE_ARENA */);
	__uint(map_flags, 1 << 10 /* BPF_F_MMAPABLE */);
	__uint(max_entries, 100);
} arena SEC(".maps");

UPATCH_COUNTER(__u64, hits);

SEC("upatch/exe:f")
int UPATCH(f)
{
	UPATCH_INC(hits);
	return UPATCH_CONTINUE;
}
