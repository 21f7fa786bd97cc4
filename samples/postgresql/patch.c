/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Takes the shell away from PostgreSQL: COPY ... PROGRAM runs no command but the one allowed. See README.md. */
#include "upatch.h"

#define EPERM 1

/* Room for the allowed command with its NUL; nothing longer is allowed. */
#define LONGEST 256

/* The one command that may run still, letter by letter as COPY's PROGRAM has it; empty: none. */
UPATCH_RULE(char, allowed[LONGEST]) = "";
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

static __noinline int is_allowed(const char *command)
{
	char asked[LONGEST] = {};

	if (!allowed[0] || bpf_probe_read_user_str(asked, sizeof(asked), command) < 0)
		return 0;
	for (int i = 0; i < LONGEST - 1; i++) {
		if (asked[i] != allowed[i])
			return 0;
		if (!asked[i])
			return 1;
	}
	return 0; /* at least LONGEST - 1 letters: how it goes on isn't known */
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
