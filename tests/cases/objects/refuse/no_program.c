// refused: the object has no program
// hint: a patch begins with SEC("upatch/MODULE:FUNCTION")
#include "upatch.h"
__noinline long f(long x) { return x; }
