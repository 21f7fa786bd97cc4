/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bounds what one writev(2) of a program writes, in all and in one piece. See README.md. */
#include "upatch_length.h"

#define EMSGSIZE 90

UPATCH_RULE(__u64, most) = 0x100000;
UPATCH_RULE(__u64, longest) = 0x10000;
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

SEC("upatch/libc.so.6:writev")
int UPATCH(bound_writes, int fd, const void *iov, int count)
{
	struct upatch_iovecs all;
	long flaw = upatch_iovec_sum(iov, count, &all);

	(void)fd;
	UPATCH_INC(hits);
	/* What the kernel refuses by itself, it shall refuse in its own words. */
	if (flaw == UPATCH_UNREADABLE || flaw == UPATCH_INVALID)
		return UPATCH_CONTINUE;
	if (!flaw && all.sum <= most && all.longest <= longest)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	upatch_set_errno(EMSGSIZE);
	return upatch_return(ctx, -1);
}
