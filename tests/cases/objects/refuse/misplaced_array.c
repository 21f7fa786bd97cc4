// refused: `counts` is an ordinary variable, which the kernel program `on_packet` cannot share with a patch
// hint: write `__u64 __arena counts[3][4];`
#include "upatch.h"
__u64 counts[3][4] = { { 1 } };
SEC("xdp") int on_packet(void *xdp) { return counts[1][2]++; }
