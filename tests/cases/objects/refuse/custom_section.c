// refused: upatch does not know what the data section `mine` is for
#include "upatch.h"
int state SEC("mine");
SEC("upatch/exe:f") int UPATCH(f) { state++; return UPATCH_CONTINUE; }
