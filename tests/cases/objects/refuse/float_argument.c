// refused: the external function `area`: parameter 3 has type `double`, which is neither an integer of up to 64 bits nor a pointer
#include "upatch.h"
extern int area(int a, double *p, double b) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return area(3, NULL, 0) > 7; }
