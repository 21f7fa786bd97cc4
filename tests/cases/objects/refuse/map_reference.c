// refused: program `f`: `f` refers to the map `arena`; a patch reaches the arena through its variables
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "upatch.h"
struct { __uint(type, 33); __uint(max_entries, 4); } arena SEC(".maps");
SEC("upatch/exe:f") int UPATCH(f) { asm volatile("" : : "r"(&arena)); return UPATCH_CONTINUE; }
