// refused: the external function `area`: it returns `int128`, which is neither void, an integer of up to 64 bits nor a pointer
#include "upatch.h"
typedef __int128 int128;
extern int128 area(int a) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return area(3) > 7; }
