/* The bound comes before can_loop: what it says must survive until the loop's body. */
#include "upatch.h"

UPATCH_COUNTER(__u64, slashes);

SEC("upatch/exe:open_path")
int UPATCH(count, const char *path)
{
	char buf[100];

	if (bpf_probe_read_user_str(buf, sizeof(buf), path) < 0)
		return UPATCH_CONTINUE;
	for (unsigned int i = 0; i < sizeof(buf) && can_loop; i++) {
		if (!buf[i])
			break;
		if (buf[i] == '/')
			UPATCH_INC(slashes);
	}
	return UPATCH_CONTINUE;
}
