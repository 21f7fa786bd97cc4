// refused: the section name `upatch/main` names no target: there is no `:` between module and function
// hint: write SEC("upatch/MODULE:FUNCTION") or SEC("upatch/MODULE:FUNCTION+OFFSET")
#include "upatch.h"
SEC("upatch/main") int UPATCH(a) { return UPATCH_CONTINUE; }
