// refused: `f` in section `upatch/exe:f`: a program is not static
#include "upatch.h"
SEC("upatch/exe:f") static int f(void *ctx) { return 0; }
