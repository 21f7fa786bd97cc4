// refused: the external function `g`: the annotation `__str` does not fit parameter 1: it is no pointer to characters
#include "upatch.h"
extern int g(const int *s __str) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return g(NULL); }
