/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses the character set ISO-2022-CN-EXT, however a program spells it. See README.md. */
#include "upatch.h"

#define EINVAL 22

/* Longer than the name of any character set; a name that doesn't fit can't be judged and is refused. */
#define LONGEST 128
#define NORMALIZED 32

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

/*
 * glibc knows a character set by its name in capitals, from which it drops every byte but A-Z 0-9 _ - . , : and it
 * takes what follows a slash as a suffix. Here: what each byte becomes, 0 where it is dropped.
 */
#define KEPT(c) [c] = c
#define LETTER(c) [c] = c, [c + 'a' - 'A'] = c
static const __u8 becomes[256] = {
	KEPT('_'), KEPT('-'), KEPT('.'), KEPT(','), KEPT(':'),
	KEPT('0'), KEPT('1'), KEPT('2'), KEPT('3'), KEPT('4'), KEPT('5'), KEPT('6'), KEPT('7'), KEPT('8'), KEPT('9'),
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

		if (!byte || byte == '/')
			break;
		byte = becomes[byte];
		if (!byte)
			continue;
		if (length >= NORMALIZED - 1)
			return 0;
		normalized[length] = byte;
		length++;
	}
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
