/* One of each: what the structure test looks for. */
#include "upatch.h"

UPATCH_BUILD_ID("6B1D7DD26E5ED2A2");
UPATCH_BUILD_ID("729230f14537e8751a677c2721c1d16dedd92441");

enum mode { MODE_OFF, MODE_LOG, MODE_REFUSE = 7 };
typedef struct {
	int level;
	unsigned int low : 3, high : 5;
	union {
		long number;
		void *address;
	};
	char name[12];
	enum mode mode;
	_Bool on;
} rules_t;

UPATCH_RULE(rules_t, rules) = { .level = -3, .low = 5, .high = 17, .number = 0x1000, .name = "hello", .mode = MODE_REFUSE, .on = 1 };
UPATCH_COUNTER(__u64, hits[4]);
UPATCH_COUNTER(__u32, small);
long __arena scratch;

static long calls = 41;
int seen;
static const unsigned short table[8] = { 1, 2, 3, 5, 8, 13, 21, 34 };
const volatile int limit = 60;
char LICENSE[] SEC("license") = "Dual MIT/GPL";

extern int answer(void) __ksym;
extern void say(void *client, const char *text __str) __ksym;
extern long put(int level, const void *bytes, size_t count __sz) __ksym;
extern long get(void *bytes __nullable, unsigned int count __sz, enum mode mode) __ksym;
extern _Bool ask(void *anything __nullable, short s) __ksym;
extern void *allocate(__u64 size) __ksym;

static __noinline long twice(long x)
{
	return x * 2 + table[x & 7];
}

__noinline long visible(long x, long y)
{
	return twice(x) - y;
}

static long body(__u32 index, void *data)
{
	*(long *)data += twice(index);
	return 0;
}

SEC("upatch/libexample.so.1:entry")
int UPATCH(entry, void *client, const char *text, unsigned int len, bool on)
{
	char buf[16] = {};
	long sum = 0;

	if (!on || len < limit)
		return UPATCH_CONTINUE;
	bpf_loop(10, body, &sum, 0);
	for (int i = 0; can_loop; i++)
		if ((sum += i) > 1000)
			break;
	bpf_probe_read_user_str(buf, sizeof(buf), text);
	say(client, "refused");
	put(answer(), buf, sizeof(buf));
	get(buf, sizeof(buf), MODE_LOG);
	if (ask(NULL, 3) && bpf_strncmp(buf, sizeof(buf), "refused?") == 0)
		scratch = (long)allocate(16);
	calls++;
	seen = len;
	UPATCH_INC(hits[len & 3]);
	UPATCH_ADD(small, 2);
	return upatch_return(ctx, visible(sum, rules.level));
}

SEC("upatch/libexample.so.1:entry+0x1c")
int UPATCH(inside)
{
	ctx->r12 = visible(ctx->rbx, 1);
	return UPATCH_CONTINUE;
}

SEC("uprobe/exe:watched+8")
int UPATCH(watch, long n)
{
	return twice(n);
}
