/* Events of every kind: a struct, a number, text; in a program and in a subprogram. */
#include "upatch.h"

enum why { TOO_LONG = 1, TOO_OFTEN };
struct refusal {
	char user[16];
	__u32 length;
	enum why why;
};
UPATCH_COUNTER(__u64, hits);

static __noinline int note(long length)
{
	long number = length;

	return upatch_event_plain(&number, sizeof(number));
}

SEC("upatch/exe:work")
int UPATCH(watch, int x, const char *user)
{
	struct refusal refusal = {};
	enum why why = TOO_OFTEN;

	UPATCH_INC(hits);
	if (x < 100)
		return UPATCH_CONTINUE;
	refusal.length = x;
	refusal.why = TOO_LONG;
	bpf_probe_read_user_str(refusal.user, sizeof(refusal.user), user);
	if (upatch_event(&refusal, sizeof(refusal)))
		note(x);
	if (x > 1000)
		bpf_printk("%d is too long, %lu hits\n", x, hits);
	upatch_event_plain(&why, sizeof(why));
	return upatch_return(ctx, -14);
}

SEC("uprobe/exe:other")
int UPATCH(look, long x)
{
	bpf_printk("looked");
	return 0;
}
