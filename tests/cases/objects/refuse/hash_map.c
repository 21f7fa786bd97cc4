// refused: map `sessions` (hash): upatch has no maps, only the arena
// hint: count in UPATCH_COUNTER(type, name), look up in UPATCH_RULE(type, name)
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sessions SEC(".maps");
SEC("uprobe/exe:f") int f(void *ctx) { __u32 key = 1; return bpf_map_lookup_elem(&sessions, &key) != 0; }
