// A log2 histogram of an argument at an instruction inside a function.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

__u64 buckets[64];

static __always_inline __u32 log2_of(__u64 value)
{
	__u32 result = 0;

	for (int i = 0; i < 6; i++) {
		__u32 half = 32 >> i;

		if (value >> half) {
			value >>= half;
			result += half;
		}
	}
	return result;
}

SEC("uprobe/exe:handle_request+0x10")
int sizes(struct pt_regs *ctx)
{
	__u64 size = PT_REGS_PARM3(ctx);
	__u64 *bucket = &buckets[log2_of(size) & 63];

	__sync_fetch_and_add(bucket, 1);
	return 0;
}
