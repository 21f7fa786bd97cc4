// refused: `on_packet` in section `xdp` is a kernel program of a kind that upatch does not attach yet
// hint: attaching comes later for all but `tcx/ingress`, `tcx/egress` and `tc`; put the others into an object of their own
#include "upatch.h"
UPATCH_COUNTER(__u64, packets);
SEC("xdp") int on_packet(void *ctx) { UPATCH_INC(packets); return 2; }
SEC("upatch/exe:f") int UPATCH(f) { return UPATCH_CONTINUE; }
