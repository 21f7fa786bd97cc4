// refused: the external function `g`: the annotation `arg:nonnull` of parameter 1 is unknown
#include "upatch.h"
extern int g(void *p __attribute__((btf_decl_tag("arg:nonnull")))) __ksym;
SEC("upatch/exe:f") int UPATCH(f) { return g(ctx); }
