// refused: `on_packet` in section `tc` is a kernel program, which upatch does not load yet
// hint: put kernel programs into an object of their own, and load it by libbpf
#include "upatch.h"
UPATCH_COUNTER(__u64, packets);
SEC("tc") int on_packet(void *skb) { UPATCH_INC(packets); return 0; }
SEC("upatch/exe:f") int UPATCH(f) { return UPATCH_CONTINUE; }
