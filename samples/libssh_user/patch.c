/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses user names that mean something to a shell, before libssh believes them (CVE-2026-59846). See README.md. */
#include "upatch.h"

/* Debian's libssh-4 0.10.6-0+deb12u2, amd64 */
UPATCH_BUILD_ID("c52464da7b29f5930156df81ba4d5c1342676896");

/* enum ssh_options_e: HOST may be USER@HOST, and sets both. */
#define SSH_OPTIONS_HOST 0
#define SSH_OPTIONS_USER 4

/* With its NUL. No account and no host has a name near this; one that doesn't fit can't be judged and is refused. */
#define LONGEST 256

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

/*
 * What each byte is, as the fixed library sees it: some are unwanted anywhere, a dash is so behind white space and at
 * the beginning. The values are such that the value before, doubled, has a bit in common with the next in that case.
 */
#define UNWANTED 1
#define SPACE 2
#define DASH 4
static const __u8 class_of[256] = {
	['\''] = UNWANTED, ['"'] = UNWANTED, ['`'] = UNWANTED, ['$'] = UNWANTED, ['&'] = UNWANTED, ['('] = UNWANTED,
	[')'] = UNWANTED, [','] = UNWANTED, [';'] = UNWANTED, ['<'] = UNWANTED, ['>'] = UNWANTED, ['\\'] = UNWANTED,
	['{'] = UNWANTED, ['|'] = UNWANTED, ['}'] = UNWANTED, ['\n'] = UNWANTED, [' '] = SPACE, ['\t'] = SPACE,
	['\v'] = SPACE, ['\f'] = SPACE, ['\r'] = SPACE, ['-'] = DASH,
};

static __noinline int is_unwanted(const char *name)
{
	char copy[LONGEST] = {};
	__u32 wrong = 0, before = SPACE;
	long size;

	size = bpf_probe_read_user_str(copy, sizeof(copy), name);
	if (size < 0) /* NULL stands for the local user; anything else libssh will find out by itself */
		return 0;
	if (size == LONGEST)
		return 1;
	for (int i = 0; i < LONGEST; i++) {
		__u8 byte = copy[i];
		__u32 class;

		if (!byte)
			break;
		/* No branch, so that the verifier walks the loop once. */
		class = class_of[byte];
		wrong |= (class & UNWANTED) | (before << 1 & class);
		before = class;
	}
	return wrong != 0;
}

SEC("upatch/libssh.so.4:ssh_options_set")
int UPATCH(refuse_shell_characters, void *session, unsigned int type, const char *value)
{
	UPATCH_INC(hits);
	if (type != SSH_OPTIONS_USER && type != SSH_OPTIONS_HOST)
		return UPATCH_CONTINUE;
	if (!is_unwanted(value))
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	return upatch_return(ctx, -1);
}
