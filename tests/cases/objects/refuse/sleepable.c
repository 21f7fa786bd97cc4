// refused: `f` in section `uprobe.s/exe:f`: sleepable programs are for kernel uprobes; write `uprobe/…`
#include "upatch.h"
SEC("uprobe.s/exe:f") int f(void *ctx) { return 0; }
