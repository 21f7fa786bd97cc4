// refused: `f` in section `uretprobe/exe:f`: programs that run when a function returns are not built yet
#include "upatch.h"
SEC("uretprobe/exe:f") int f(void *ctx) { return 0; }
