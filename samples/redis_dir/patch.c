/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Lets a server change its directory only to, and beneath, those of a list. See README.md. */
#include "upatch_list.h"
#include "upatch_path.h"

#define EACCES 13

UPATCH_STRING_LIST(directories, 8, 64) = { "/var/lib/redis" };
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

SEC("upatch/libc.so.6:chdir")
int UPATCH(confine, const char *directory)
{
	char path[256];
	long length = upatch_read_str(path, sizeof(path), directory);

	UPATCH_INC(hits);
	length = upatch_path_normalize(path, sizeof(path), length, UPATCH_DOTDOT_REFUSE);
	if (length > 0 && upatch_list_has_beneath(directories, path, sizeof(path)) == 1)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	upatch_set_errno(EACCES);
	return upatch_return(ctx, -1);
}
