/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Lets a program resolve only the host names of a list. See README.md. */
#include "upatch_list.h"

#define EAI_NONAME -2

UPATCH_STRING_LIST(hosts, 16, 64) = { "localhost", "127.0.0.1" };
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

SEC("upatch/libc.so.6:getaddrinfo")
int UPATCH(refuse_hosts, const char *node)
{
	char name[128];

	UPATCH_INC(hits);
	if (!node) /* an address to listen at */
		return UPATCH_CONTINUE;
	if (upatch_read_str(name, sizeof(name), node) > 0) {
		upatch_lower(name, sizeof(name));
		if (upatch_list_has(hosts, name, sizeof(name)) == 1)
			return UPATCH_CONTINUE;
	}
	UPATCH_INC(refused);
	return upatch_return(ctx, EAI_NONAME);
}
