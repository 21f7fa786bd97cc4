/* More values alive than there are registers, across calls. */
#include "upatch.h"

UPATCH_COUNTER(__u64, sums[2]);

SEC("upatch/exe:mix")
int UPATCH(mix, long a, long b, long c, long d, long e, long f)
{
	__u64 t0 = bpf_ktime_get_ns();
	long x = a * b + c, y = c * d + e, z = e * f + a;
	__u32 r = bpf_get_prandom_u32();
	__u64 t1 = bpf_ktime_get_ns();
	unsigned char table[32] = {};

	if ((unsigned long)a >= sizeof(table) || (unsigned long)b >= sizeof(table))
		return UPATCH_CONTINUE;
	bpf_get_current_comm(table, 16);
	UPATCH_ADD(sums[0], x + y + z + r + (t1 - t0) + c * d * e * f);
	UPATCH_ADD(sums[1], table[a] + table[b]);
	return UPATCH_CONTINUE;
}
