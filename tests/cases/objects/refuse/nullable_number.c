// refused: the external function `g`: the annotation `__nullable` does not fit parameter 1: it is no pointer
#include "upatch.h"
extern int g(int n __nullable) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return g(0); }
