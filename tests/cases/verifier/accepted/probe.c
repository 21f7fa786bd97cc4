/* An existing uprobe program: reads only, returns what it likes. */
#include "upatch.h"

UPATCH_COUNTER(__u64, calls);

SEC("uprobe//usr/bin/true:main")
int watch(struct pt_regs *ctx)
{
	if (PT_REGS_PARM1(ctx) > 1 && PT_REGS_SP(ctx) != 0)
		UPATCH_INC(calls);
	return PT_REGS_IP(ctx) & 7;
}
