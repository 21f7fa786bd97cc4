// refused: the initial value of `words` holds an address, which is not known before the patch is placed
// hint: make it an array of arrays (`char names[][8]`), fill it in the program, or use an index instead
#include "upatch.h"
static const char *volatile words[2] = { "a", "b" };
SEC("upatch/exe:f") int UPATCH(f, int n) { return words[n & 1] != NULL; }
