/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Answers NULL for no bytes, where libssh would write in front of its buffer (CVE-2026-0966). See README.md. */
#include "upatch.h"

/* Debian's libssh-4 0.10.6-0+deb12u2, amd64 */
UPATCH_BUILD_ID("c52464da7b29f5930156df81ba4d5c1342676896");

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

SEC("upatch/libssh.so.4:ssh_get_hexa")
int UPATCH(refuse_nothing, const __u8 *what, size_t length)
{
	UPATCH_INC(hits);
	if (length)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	return upatch_return(ctx, NULL);
}
