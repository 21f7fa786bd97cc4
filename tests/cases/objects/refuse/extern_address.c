// refused: program `f`: `f` takes the address of `g`, a function of the program; it can only be called
#include "upatch.h"
extern int g(int n) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { bpf_loop(3, g, NULL, 0); return g(3); }
