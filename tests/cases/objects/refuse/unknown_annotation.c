// refused: the external function `g`: the annotation `upatch:colour` of parameter 2 is unknown
#include "upatch.h"
extern int g(int a, void *p __upatch_tag("colour")) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return g(1, ctx); }
