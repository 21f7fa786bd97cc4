// refused: the external function `g`: the annotation `__uninit` of parameter 1 is not built yet
#include "upatch.h"
extern int g(void *p __uninit, int n __sz) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { char b[8] = {}; return g(b, 8); }
