// refused: the external function `g`: the annotation `__acquire` of the function is not built yet
#include "upatch.h"
extern void *g(void) __ksym __acquire;
SEC("upatch/exe:f") int UPATCH(f) { return g() != NULL; }
