// refused: `a` and `b` both go to `exe:f+0x10`; more than one program at a place is not built yet
#include "upatch.h"
SEC("upatch/exe:f+16") int UPATCH(a) { return UPATCH_CONTINUE; }
SEC("uprobe/exe:f+0x10") int UPATCH(b) { return 0; }
