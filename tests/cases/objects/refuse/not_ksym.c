// refused: the external function `reply`: the function is called but not defined; a function of the program is declared with `__ksym`
// hint: declare `reply` with __ksym if it is a function of the program, or define it
#include "upatch.h"
extern void reply(int code);
SEC("upatch/exe:f") int UPATCH(f) { reply(3); return UPATCH_CONTINUE; }
