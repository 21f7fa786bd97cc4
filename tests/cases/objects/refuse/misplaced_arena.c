// refused: `r` is an ordinary variable, which the kernel program `on_packet` cannot share with a patch
// hint: write `struct rules __arena r;`
#include "upatch.h"
struct rules { int limit; } __arena r;
SEC("tc") int on_packet(void *skb) { return r.limit; }
SEC("upatch/exe:f") int UPATCH(f, int a) { return a > r.limit ? upatch_return(ctx, 0) : UPATCH_CONTINUE; }
