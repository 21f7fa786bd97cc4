// refused: the external function `g`: the annotation `__sz` does not fit parameter 1: there is no pointer just before it
#include "upatch.h"
extern int g(int n __sz) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return g(8); }
