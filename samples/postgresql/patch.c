/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Takes the shell away from PostgreSQL: COPY ... PROGRAM runs no command but the one allowed. See README.md. */
#include "upatch_list.h"

#define EPERM 1

/* Room for a command with its NUL; nothing longer is allowed. */
#define LONGEST 256

/*
 * The commands that may run still, letter by letter as COPY's PROGRAM has them. While `rules set` writes, the list answers
 * neither yes nor no, and nothing is allowed.
 */
UPATCH_STRING_LIST(allowed, 4, LONGEST) = {};
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

static __noinline int is_allowed(const char *command)
{
	char asked[LONGEST] = {};

	return upatch_read_str(asked, sizeof(asked), command) > 0 &&
	       upatch_list_has(allowed, asked, sizeof(asked)) == 1;
}

SEC("upatch/exe:OpenPipeStream")
int UPATCH(refuse_program, const char *command, const char *mode)
{
	UPATCH_INC(hits);
	if (is_allowed(command))
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	upatch_set_errno(EPERM);
	return upatch_return(ctx, NULL);
}
