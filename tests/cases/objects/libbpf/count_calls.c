// Counts calls and remembers the largest request, in the style of libbpf's examples.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__u64 calls = 0;
__u64 largest = 0;

SEC("uprobe//usr/lib/x86_64-linux-gnu/libc.so.6:malloc")
int BPF_KPROBE(on_malloc, unsigned long size)
{
	__sync_fetch_and_add(&calls, 1);
	if (size > largest)
		largest = size;
	return 0;
}
