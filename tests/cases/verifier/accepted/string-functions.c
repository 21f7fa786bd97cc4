/* Subprograms with pointers into their caller's stack, loops in both. */
#include "upatch.h"
UPATCH_COUNTER(__u64, sums[64]);
static __attribute__((noinline)) __u32 length(const char *s, __u32 most)
{
	__u32 i;
	if (most > 64)
		most = 64;
	for (i = 0; i < most; i++)
		if (!s[i])
			break;
	return i;
}
static __attribute__((noinline)) void upper(char *s, __u32 n)
{
	for (__u32 i = 0; i < 64 && i < n; i++)
		if (s[i] >= 'a' && s[i] <= 'z')
			s[i] -= 32;
}
SEC("upatch/exe:name")
int UPATCH(name, const char *text)
{
	char a[64] = {}, b[64] = {};
	bpf_probe_read_user_str(a, sizeof(a), text);
	__u32 n = length(a, sizeof(a));
	upper(a, n);
	if (n >= 64)
		return UPATCH_CONTINUE;
	for (__u32 i = 0; i < n; i++)
		b[n - 1 - i] = a[i];
	UPATCH_ADD(sums[n], b[0]);
	return length(b, n) == 3 ? upatch_return(ctx, 3) : UPATCH_CONTINUE;
}
