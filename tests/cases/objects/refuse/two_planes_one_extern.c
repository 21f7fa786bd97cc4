// refused: the external function `call_me`: parameter 1 has type `float`, which is neither an integer of up to 64 bits nor a pointer
#include "upatch.h"
UPATCH_COUNTER(__u64, packets);
extern int call_me(float x) __ksym;
SEC("tc") int on_packet(void *ctx) { UPATCH_INC(packets); return 0; }
SEC("upatch/exe:f") int UPATCH(f) { call_me(0); return UPATCH_CONTINUE; }
