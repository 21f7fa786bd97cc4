// refused: program `on_packet`: `on_packet` calls bpf_arena_free_pages, after which a process that maps the arena could reach freed memory
#include "upatch.h"
UPATCH_COUNTER(__u64, packets);
extern void bpf_arena_free_pages(void *map, void __arena *at, __u32 pages) __attribute__((section(".ksyms")));
SEC("tc") int on_packet(void *ctx) { bpf_arena_free_pages(ctx, (void __arena *)&packets, 1); return 0; }
SEC("upatch/exe:f") int UPATCH(f) { return UPATCH_CONTINUE; }
