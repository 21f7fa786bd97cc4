/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Takes system(3) away from a program that has no business with a shell. See README.md. */
#include "upatch.h"

#define EPERM 1

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

SEC("upatch/libc.so.6:system")
int UPATCH(refuse_shell, const char *command)
{
	UPATCH_INC(hits);
	if (!command) /* asks whether there is a shell: there is none now */
		return upatch_return(ctx, 0);
	UPATCH_INC(refused);
	upatch_set_errno(EPERM);
	return upatch_return(ctx, -1);
}
