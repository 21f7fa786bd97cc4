// refused: the external function `printf`: it is variadic
#include "upatch.h"
extern int printf(const char *format, ...) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { printf("x"); return UPATCH_CONTINUE; }
