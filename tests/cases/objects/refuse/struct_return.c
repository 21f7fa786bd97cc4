// refused: the external function `area`: it returns `struct point`, which is neither void, an integer of up to 64 bits nor a pointer
#include "upatch.h"
struct point { int x; };
extern struct point area(int a) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return area(3).x > 7; }
