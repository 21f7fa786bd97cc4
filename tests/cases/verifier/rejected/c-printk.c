/* The trace pipe belongs to the kernel; upatch.h has a bpf_printk of its own.
 *
 * subject: bpf_trace_printk
 * must: a call must go to a helper that upatch has
 * known: the kernel's bpf_trace_printk
 * hint: upatch_printk(), which records an event
 */
#include "upatch.h"

static long (*const trace_printk)(const char *fmt, __u32 size, ...) = (void *)6;

SEC("upatch/exe:f")
int UPATCH(patch, int value)
{
#ifndef MENDED
	trace_printk("%d", 3, value); /* HERE */
#endif
	return UPATCH_CONTINUE;
}
