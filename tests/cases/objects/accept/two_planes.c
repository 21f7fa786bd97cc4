// Kernel programs beside a patch: one arena, a subprogram of both, read-only data, a function of the kernel's.
#include "upatch.h"
UPATCH_RULE(__u32, limit) = 7;
UPATCH_COUNTER(__u64, packets);
extern void *bpf_cast_to_kern_ctx(void *) __attribute__((section(".ksyms")));
static const __u32 table[4] = {1, 2, 3, 4};
static __attribute__((noinline)) __u32 look(__u32 at) { return table[at & 3] + limit; }
SEC("tcx/egress") int on_packet(void *ctx) { UPATCH_INC(packets); return bpf_cast_to_kern_ctx(ctx) && look(packets) ? -1 : 2; }
SEC("upatch/exe:f") int UPATCH(f) { return look(2) > 100 ? upatch_return(ctx, 1) : UPATCH_CONTINUE; }
char _license[] SEC("license") = "GPL";
