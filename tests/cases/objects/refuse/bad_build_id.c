// refused: the build-id `6b1d7dd26e5ed2a` is not an even number of hexadecimal digits, at least 8
#include "upatch.h"
UPATCH_BUILD_ID("6b1d7dd26e5ed2a");
SEC("upatch/exe:f") int UPATCH(f) { return UPATCH_CONTINUE; }
