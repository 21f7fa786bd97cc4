// refused: the arena of 4096 bytes is smaller than the variables in it, 8008 bytes
// hint: raise max_entries (pages of 4096 bytes)
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "upatch.h"
struct { __uint(type, 33); __uint(max_entries, 1); } arena SEC(".maps");
UPATCH_COUNTER(__u64, many[1001]);
SEC("upatch/exe:f") int UPATCH(f, unsigned int n) { UPATCH_INC(many[n & 511]); return UPATCH_CONTINUE; }
