/* A while loop that ends when the budget does. */
#include "upatch.h"

struct node {
	struct node *next;
	int id;
};

SEC("upatch/exe:walk")
int UPATCH(walk, struct node *list)
{
	struct node n;
	int steps = 0;

	while (list) {
		cond_break;
		if (bpf_probe_read_user(&n, sizeof(n), list))
			break;
		if (n.id == 7)
			return upatch_return(ctx, list);
		list = n.next;
		steps++;
	}
	return UPATCH_CONTINUE;
}
