/* Three levels of pointers of the program. */
#include "upatch.h"

struct object {
	unsigned int type;
	unsigned int len;
	void *data;
};
struct request {
	void *next;
	struct object **argv;
	int argc;
};

UPATCH_COUNTER(__u64, longest);

SEC("upatch/exe:execute")
int UPATCH(watch, struct request *req)
{
	struct request r;
	struct object *first, o;
	char name[16] = {};

	if (bpf_probe_read_user(&r, sizeof(r), req) || r.argc < 1)
		return UPATCH_CONTINUE;
	if (bpf_probe_read_user(&first, sizeof(first), &r.argv[0]))
		return UPATCH_CONTINUE;
	if (bpf_probe_read_user(&o, sizeof(o), first))
		return UPATCH_CONTINUE;
	if (o.len > sizeof(name))
		o.len = sizeof(name);
	if (bpf_probe_read_user(name, o.len, o.data))
		return UPATCH_CONTINUE;
	if (!bpf_strncmp(name, sizeof(name), "shutdown")) {
		UPATCH_INC(longest);
		return upatch_return(ctx, 0);
	}
	return UPATCH_CONTINUE;
}
