/* `n < 1 || n > 10` is one comparison after a subtraction. */
#include "upatch.h"

SEC("upatch/exe:take")
int UPATCH(take, unsigned int n)
{
	char buf[16] = {};

	if (n < 1 || n > 10)
		return UPATCH_CONTINUE;
	bpf_probe_read_user(buf, n, (void *)PT_REGS_PARM2(ctx));
	if (buf[n - 1] == 'x')
		return upatch_return(ctx, buf[n]);
	return UPATCH_CONTINUE;
}
