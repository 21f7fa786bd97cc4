/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses the character set ISO-2022-CN-EXT, however a program spells it. See README.md. */
#include "upatch.h"

#define EINVAL 22

/* Longer than the name of any character set; a name that doesn't fit can't be judged and is refused. */
#define LONGEST 128
/* Longer than the unwanted names; a power of two. */
#define NORMALIZED 32

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

/*
 * glibc knows a character set by its name in capitals, from which it drops every byte but A-Z 0-9 _ - . , : and it
 * takes what follows a slash as a suffix. Here: what each byte becomes, marked as KEPT; 0 where it is dropped.
 */
#define KEPT 0x100
#define SIGN(c) [c] = KEPT | c
#define LETTER(c) [c] = KEPT | c, [c + 'a' - 'A'] = KEPT | c
static const __u16 becomes[256] = {
	SIGN('_'), SIGN('-'), SIGN('.'), SIGN(','), SIGN(':'),
	SIGN('0'), SIGN('1'), SIGN('2'), SIGN('3'), SIGN('4'), SIGN('5'), SIGN('6'), SIGN('7'), SIGN('8'), SIGN('9'),
	LETTER('A'), LETTER('B'), LETTER('C'), LETTER('D'), LETTER('E'), LETTER('F'), LETTER('G'), LETTER('H'),
	LETTER('I'), LETTER('J'), LETTER('K'), LETTER('L'), LETTER('M'), LETTER('N'), LETTER('O'), LETTER('P'),
	LETTER('Q'), LETTER('R'), LETTER('S'), LETTER('T'), LETTER('U'), LETTER('V'), LETTER('W'), LETTER('X'),
	LETTER('Y'), LETTER('Z'),
};

static __noinline int is_unwanted(const char *name)
{
	char raw[LONGEST] = {}, normalized[NORMALIZED] = {};
	__u32 length = 0;
	long size;

	size = bpf_probe_read_user_str(raw, sizeof(raw), name);
	if (size < 0) /* iconv_open will find out by itself */
		return 0;
	if (size == LONGEST)
		return 1;
	for (int i = 0; i < LONGEST; i++) {
		__u8 byte = raw[i];
		__u16 kept;

		if (!byte || byte == '/')
			break;
		/* No branch, so that the verifier walks the loop once. A dropped byte's 0 is overwritten by the next. */
		kept = becomes[byte];
		normalized[length % NORMALIZED] = kept;
		length += kept / KEPT;
	}
	if (length >= NORMALIZED)
		return 0;
	return !bpf_strncmp(normalized, sizeof(normalized), "ISO-2022-CN-EXT") ||
	       !bpf_strncmp(normalized, sizeof(normalized), "ISO2022CNEXT");
}

SEC("upatch/libc.so.6:iconv_open")
int UPATCH(refuse_charset, const char *to, const char *from)
{
	UPATCH_INC(hits);
	if (!is_unwanted(to) && !is_unwanted(from))
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	upatch_set_errno(EINVAL);
	return upatch_return(ctx, -1L);
}
