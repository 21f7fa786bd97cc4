#include "case.h"

UPATCH_NUMBER_LIST(__u32, ports, 8) = { 80, 443, 0xffffffff };
UPATCH_NUMBER_LIST(__s64, values, 4) = { -1, 0x100000000 };

SEC("upatch/exe:f")
int UPATCH(numbers, __u32 port, __s64 value)
{
	return upatch_return(ctx, upatch_number_list_has(ports, port) | upatch_number_list_has(values, value) << 1);
}
