/* Static and global functions, pointers into the caller's stack. */
#include "upatch.h"

struct pair {
	long low;
	long high;
};

static __noinline void order(struct pair *p)
{
	if (p->low > p->high) {
		long t = p->low;

		p->low = p->high;
		p->high = t;
	}
}

__noinline long middle(long low, long high)
{
	return low / 2 + high / 2;
}

SEC("upatch/exe:between")
int UPATCH(between, long a, long b)
{
	struct pair p = { a, b };

	order(&p);
	PT_REGS_PARM1(ctx) = middle(p.low, p.high);
	return UPATCH_CONTINUE;
}
