/* A correlation: an output index that never passes the input's. */
#include "upatch.h"
char __arena clean[64];
SEC("upatch/exe:strip")
int UPATCH(strip, const char *text)
{
	char in[64] = {}, out[64] = {};
	int o = 0;
	bpf_probe_read_user_str(in, sizeof(in), text);
	for (int i = 0; i < 63; i++) {
		if (!in[i])
			break;
		if (in[i] != ' ')
			out[o++] = in[i];
	}
	for (int i = 0; i < 64; i++)
		clean[i] = out[i];
	return o ? UPATCH_CONTINUE : upatch_return(ctx, 0);
}
