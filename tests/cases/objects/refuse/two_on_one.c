// refused: `a` and `b` both go to `exe:f`; more than one program at a place is not built yet
// hint: write one program that does both
#include "upatch.h"
SEC("upatch/exe:f") int UPATCH(a) { return UPATCH_CONTINUE; }
SEC("upatch/exe:f") int UPATCH(b) { return UPATCH_CONTINUE; }
