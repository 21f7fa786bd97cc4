// refused: `f` in section `upatch.ret/exe:f`: programs that run when a function returns are not built yet
#include "upatch.h"
SEC("upatch.ret/exe:f") int f(void *ctx) { return 0; }
