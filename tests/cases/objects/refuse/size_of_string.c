// refused: the external function `g`: the annotation `__sz` does not fit parameter 2: the pointer before it is a string
#include "upatch.h"
extern int g(const char *s __str, int n __sz) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return g("x", 2); }
