/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * upatch_text.h: text of the program, copied once and then judged: UTF-8, digits, sets of allowed bytes.
 *
 *	char name[64];
 *	long length = upatch_read_str(name, sizeof(name), user_name);
 *
 *	if (length < 0 || upatch_utf8(name, sizeof(name)))
 *		return upatch_return(ctx, -1);
 *
 * How every function of the sanitising headers works:
 *
 * Results. 0 or more is an answer; a negative result (enum upatch_flaw) says why there is none, in the terms of errno(3).
 * `if (result < 0)` refuses what can't be judged, `if (result == UPATCH_ILLEGAL)` only what is known to be wrong: choose.
 *
 * Buffers. The judged text lies in memory of the patch, on its stack, and `size` is that array's size: a constant power of
 * two, 2 to 256 (the stack of all functions of a patch together is 512 bytes). Text ends at its NUL. What begins with
 * upatch_read_ or has an `address` reads the program's memory; everything else reads the copy only, so that the program
 * can't change it between two checks. The program can still change ITS memory after the patch has judged the copy and before
 * the function uses it (double fetch): where another thread could do that on purpose, refuse the call whatever the text
 * says, or judge what the function has copied, at a later function.
 *
 * Costs. "n steps a byte" are BPF instructions, about as many x86-64 ones; a byte behind the NUL costs nothing.
 */
#ifndef UPATCH_TEXT_H
#define UPATCH_TEXT_H

#include "upatch.h"

/* Why there is no answer. */
enum upatch_flaw {
	UPATCH_BUSY = -11,	 /* EAGAIN: a list is just being edited */
	UPATCH_UNREADABLE = -14, /* EFAULT: not memory of the program */
	UPATCH_ESCAPES = -18,	 /* EXDEV: a path that leaves its directory, as openat2(2) says it */
	UPATCH_INVALID = -22,	 /* EINVAL: empty, or a count that can't be */
	UPATCH_OVERFLOW = -34,	 /* ERANGE: a number or sum over its limit */
	UPATCH_TOO_LONG = -36,	 /* ENAMETOOLONG: more than fits into the buffer */
	UPATCH_ILLEGAL = -84,	 /* EILSEQ: a byte that may not be there */
};

/*
 * All loops are bpf_loop(): the verifier then finds what holds in every iteration and walks the body a few times, however large
 * the buffer is and however many checks a patch makes one after the other. What a body works on is a struct on the stack;
 * an index is cut to the buffer by a mask, which both the verifier and the check of the machine code follow.
 */
#define __upatch_body static __attribute__((noinline, unused)) long
/* What the compiler can't see through: it would make branches of arithmetic. */
#define __upatch_opaque(value) asm volatile("" : "+r"(value))

/* Refuses a size that is no power of two at compile time: the mask made of it would skip bytes. */
#define __upatch_sized								\
	__attribute__((diagnose_if((size) < 2 || (size) > 256 || ((size) & ((size) - 1)),	\
				   "the buffer's size must be a power of two, 2 to 256", "error")))

struct __upatch_walk {
	const char *text;
	__u64 mask;
	const __u8 *set;
	__u64 state;
	long result;
};

/*
 * Copies the NUL-terminated string at `address`: its length without the NUL, 0 to size - 2.
 * UPATCH_UNREADABLE; UPATCH_TOO_LONG from size - 1 bytes on (a full buffer can't be told from a cut one).
 * 10 steps and one read.
 */
static __always_inline long upatch_read_str(char *buffer, __u32 size, const void *address) __upatch_sized;
static __always_inline long upatch_read_str(char *buffer, __u32 size, const void *address)
{
	long got = bpf_probe_read_user_str(buffer, size, address);

	if (got <= 0)
		return UPATCH_UNREADABLE;
	if (got >= size)
		return UPATCH_TOO_LONG;
	return got - 1;
}

/*
 * Copies `length` bytes from `address` and ends them with a NUL: for text that comes with its length. The result is
 * `length`, 0 to size - 1. UPATCH_TOO_LONG; UPATCH_UNREADABLE unless all of it can be read; UPATCH_ILLEGAL if one of the
 * bytes is NUL: some functions would end the text there and others not. Zeros the buffer; 10 steps a byte and one read.
 */
static __always_inline long upatch_read_text(char *buffer, __u32 size, const void *address, __u64 length)
	__upatch_sized;

__upatch_body __upatch_find_nul(__u32 index, void *data)
{
	struct __upatch_walk *walk = data;

	if (walk->text[index & walk->mask])
		return 0;
	walk->result = UPATCH_ILLEGAL;
	return 1;
}

static __always_inline long upatch_read_text(char *buffer, __u32 size, const void *address, __u64 length)
{
	__u32 count = length & (size - 1);
	struct __upatch_walk walk;

	__builtin_memset(buffer, 0, size);
	if (length >= size)
		return UPATCH_TOO_LONG;
	if (bpf_probe_read_user(buffer, count, address))
		return UPATCH_UNREADABLE;
	/* Not earlier: the check of the machine code forgets the stack when so many bytes are read as a number says. */
	walk = (struct __upatch_walk){ .text = buffer, .mask = size - 1 };
	bpf_loop(count, __upatch_find_nul, &walk, 0);
	return walk.result < 0 ? walk.result : count;
}

/* --------------------------------------------------------------------------------------------------------------------
 * Sets of allowed bytes. Yours are written like those below, with 1 for what is allowed:
 *
 *	static const upatch_charset file_name = { ['a' ... 'z'] = 1, ['0' ... '9'] = 1, ['-'] = 1, ['.'] = 1 };
 */
typedef __u8 upatch_charset[256];
#define __upatch_charset static const upatch_charset __attribute__((unused))

/* 0x20 to 0x7e: no control bytes (terminal escapes, line ends), nothing beyond ASCII */
__upatch_charset upatch_printable = { [' ' ... '~'] = 1 };
/* Letters, digits, underscore: identifiers of most languages */
__upatch_charset upatch_word = { ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['0' ... '9'] = 1, ['_'] = 1 };
/* POSIX's portable filename character set (3.265), which is also that of user names */
__upatch_charset upatch_portable = {
	['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['0' ... '9'] = 1, ['_'] = 1, ['-'] = 1, ['.'] = 1,
};
/* What no shell treats specially inside a word */
__upatch_charset upatch_shell_safe = {
	['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['0' ... '9'] = 1, ['_'] = 1, ['-'] = 1, ['.'] = 1,
	['/'] = 1, [','] = 1, [':'] = 1, ['+'] = 1, ['='] = 1, ['@'] = 1, ['%'] = 1,
};
__upatch_charset upatch_letters = { ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['_'] = 1 };

/*
 * Are all bytes of the text in `set`? 0, also for the empty text; else UPATCH_ILLEGAL. UPATCH_TOO_LONG without a NUL.
 * 20 steps a byte.
 */
static __always_inline long upatch_only(const char *text, __u32 size, const upatch_charset set)
	__upatch_sized;

__upatch_body __upatch_only_next(__u32 index, void *data)
{
	struct __upatch_walk *walk = data;
	__u8 byte = walk->text[index & walk->mask];

	if (byte && (walk->set[byte] & 1))
		return 0;
	walk->result = byte ? UPATCH_ILLEGAL : 0;
	return 1;
}

static __always_inline long upatch_only(const char *text, __u32 size, const upatch_charset set)
{
	struct __upatch_walk walk = { .text = text, .mask = size - 1, .set = set, .result = UPATCH_TOO_LONG };

	bpf_loop(size, __upatch_only_next, &walk, 0);
	return walk.result;
}

/* An identifier of C: a letter or underscore, then letters, digits, underscores: 0. UPATCH_INVALID if empty. */
static __always_inline long upatch_identifier(const char *text, __u32 size) __upatch_sized;
static __always_inline long upatch_identifier(const char *text, __u32 size)
{
	if (!text[0])
		return UPATCH_INVALID;
	if (!(upatch_letters[(__u8)text[0]] & 1))
		return UPATCH_ILLEGAL;
	return upatch_only(text, size, upatch_word);
}

/*
 * A name for users, hosts or files that no program takes for an option, a path or shell: bytes of upatch_portable, and
 * neither `-` nor `.` first: 0. UPATCH_INVALID if empty.
 */
static __always_inline long upatch_plain_name(const char *text, __u32 size) __upatch_sized;
static __always_inline long upatch_plain_name(const char *text, __u32 size)
{
	if (!text[0])
		return UPATCH_INVALID;
	if (text[0] == '-' || text[0] == '.')
		return UPATCH_ILLEGAL;
	return upatch_only(text, size, upatch_portable);
}

__upatch_body __upatch_lower_next(__u32 index, void *data)
{
	struct __upatch_walk *walk = data;
	char *place = (char *)walk->text + (index & walk->mask);
	__u8 byte = *place;

	if (byte >= 'A' && byte <= 'Z')
		*place = byte | 0x20;
	return !byte;
}

/* Turns capital letters of ASCII into small ones, in place, up to the NUL. 12 steps a byte. */
static __always_inline void upatch_lower(char *text, __u32 size) __upatch_sized;
static __always_inline void upatch_lower(char *text, __u32 size)
{
	struct __upatch_walk walk = { .text = text, .mask = size - 1 };

	bpf_loop(size, __upatch_lower_next, &walk, 0);
}

/* --------------------------------------------------------------------------------------------------------------------
 * UTF-8 as RFC 3629 has it (The Unicode Standard, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF,
 * nothing cut short.
 */
#define __UPATCH_UTF8_CLASSES 12
/* The kind of a byte: what its bits allow it to be. */
static const __u8 __upatch_utf8_class[256] __attribute__((unused)) = {
	/* 00 to 7f: 0 */
	[0x80 ... 0x8f] = 1, [0x90 ... 0x9f] = 2, [0xa0 ... 0xbf] = 3,
	[0xc0 ... 0xc1] = 11, [0xc2 ... 0xdf] = 4,
	[0xe0] = 5, [0xe1 ... 0xec] = 6, [0xed] = 7, [0xee ... 0xef] = 6,
	[0xf0] = 8, [0xf1 ... 0xf3] = 9, [0xf4] = 10, [0xf5 ... 0xff] = 11,
};
/*
 * What is expected next: 0 a character; 1, 2, 3 so many continuation bytes; 4 one of a0-bf, then one more; 5 one of
 * 80-9f, then one more; 6 one of 90-bf, then two more; 7 one of 80-8f, then two more; 8 nothing can mend it.
 */
static const __u8 __upatch_utf8_next[256] __attribute__((unused)) = {
	/*          00 80 90 a0 c2 e0 e1 ed f0 f1 f4 -- */
	[0x00] = 0, 8, 8, 8, 1, 4, 2, 5, 6, 3, 7, 8, 8, 8, 8, 8,
	[0x10] = 8, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x20] = 8, 1, 1, 1, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x30] = 8, 2, 2, 2, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x40] = 8, 8, 8, 1, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x50] = 8, 1, 1, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x60] = 8, 8, 2, 2, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x70] = 8, 2, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	[0x80 ... 0xff] = 8,
};

__upatch_body __upatch_utf8_step(__u32 index, void *data)
{
	struct __upatch_walk *walk = data;
	__u8 byte = walk->text[index & walk->mask];

	if (!byte) {
		walk->result = walk->state ? UPATCH_ILLEGAL : 0;
		return 1;
	}
	walk->state = __upatch_utf8_next[(walk->state << 4 | __upatch_utf8_class[byte]) & 0xff];
	return 0;
}

/* Is the text UTF-8? 0, also for the empty text; else UPATCH_ILLEGAL. UPATCH_TOO_LONG without a NUL. 25 steps a byte. */
static __always_inline long upatch_utf8(const char *text, __u32 size) __upatch_sized;
static __always_inline long upatch_utf8(const char *text, __u32 size)
{
	struct __upatch_walk walk = { .text = text, .mask = size - 1, .result = UPATCH_TOO_LONG };

	bpf_loop(size, __upatch_utf8_step, &walk, 0);
	return walk.result;
}

#define UPATCH_LONGEST 16384
#define __UPATCH_PIECE 64

struct __upatch_pieces {
	__u64 address, left, state;
	long result;
};

__upatch_body __upatch_utf8_more(__u32 index, void *data)
{
	struct __upatch_walk *walk = data;
	__u8 byte = walk->text[index & (__UPATCH_PIECE - 1)];

	walk->state = __upatch_utf8_next[(walk->state << 4 | __upatch_utf8_class[byte]) & 0xff];
	return 0;
}

__upatch_body __upatch_utf8_piece(__u32 index __attribute__((unused)), void *data)
{
	struct __upatch_pieces *pieces = data;
	char piece[__UPATCH_PIECE] = {};
	struct __upatch_walk walk;
	__u64 count = pieces->left < __UPATCH_PIECE ? pieces->left : __UPATCH_PIECE - 1;

	if (!count)
		return 1;
	__upatch_opaque(count);
	count &= __UPATCH_PIECE - 1;
	if (bpf_probe_read_user(piece, count, (const void *)pieces->address)) {
		pieces->result = UPATCH_UNREADABLE;
		return 1;
	}
	walk = (struct __upatch_walk){ .text = piece, .state = pieces->state };
	bpf_loop(count, __upatch_utf8_more, &walk, 0);
	pieces->state = walk.state;
	pieces->address += count;
	pieces->left -= count;
	return 0;
}

/*
 * Are the `length` bytes at `address` UTF-8, NUL among them or not? For text that fits into no buffer: it is read in pieces, each
 * byte once. 0, also for no bytes; UPATCH_ILLEGAL; UPATCH_UNREADABLE unless all of it can be read (that counts first);
 * UPATCH_TOO_LONG over UPATCH_LONGEST. 20 steps a byte and one read for each 63 bytes.
 */
static __always_inline long upatch_utf8_at(const void *address, __u64 length)
{
	struct __upatch_pieces pieces = { .address = (__u64)address, .left = length };

	if (length > UPATCH_LONGEST)
		return UPATCH_TOO_LONG;
	bpf_loop(UPATCH_LONGEST / (__UPATCH_PIECE - 1) + 1, __upatch_utf8_piece, &pieces, 0);
	if (pieces.result)
		return pieces.result;
	return pieces.state ? UPATCH_ILLEGAL : 0;
}

/* --------------------------------------------------------------------------------------------------------------------
 * Numbers
 */
/* The value of a digit up to base 36; 255 for what is no digit. */
static const __u8 __upatch_digit[256] __attribute__((unused)) = {
	[0x00 ... 0x2f] = 255,
	['0'] = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
	[0x3a ... 0x40] = 255,
	['A'] = 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35,
	[0x5b ... 0x60] = 255,
	['a'] = 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35,
	[0x7b ... 0xff] = 255,
};

struct __upatch_parse {
	const char *text;
	__u64 mask, from, base, most, sum;
	long result;
};

__upatch_body __upatch_parse_next(__u32 index, void *data)
{
	struct __upatch_parse *parse = data;
	__u8 byte = parse->text[index & parse->mask];
	__u64 digit = __upatch_digit[byte];

	if (index < parse->from)
		return 0;
	if (!byte) {
		parse->result = index == parse->from ? UPATCH_INVALID : 0;
		return 1;
	}
	if (digit >= parse->base) {
		parse->result = UPATCH_ILLEGAL;
		return 1;
	}
	if (digit > parse->most || parse->sum > (parse->most - digit) / parse->base) {
		parse->result = UPATCH_OVERFLOW;
		return 1;
	}
	parse->sum = parse->sum * parse->base + digit;
	return 0;
}

/*
 * Reads a number of digits only, in base 2 to 36: no sign, blank, `0x` or separator; letters of both cases; leading zeros
 * are digits. 0, and *value is at most `most`; UPATCH_INVALID if empty; UPATCH_ILLEGAL if a byte is no digit; UPATCH_OVERFLOW
 * once the digits so far exceed `most`; *value is then 0. UPATCH_TOO_LONG without a NUL. 25 steps and a division a digit.
 */
static __always_inline long upatch_parse_u64(const char *text, __u32 size, __u32 base, __u64 most, __u64 *value)
	__upatch_sized;
static __always_inline long upatch_parse_u64(const char *text, __u32 size, __u32 base, __u64 most, __u64 *value)
{
	struct __upatch_parse parse = {
		.text = text, .mask = size - 1, .base = base, .most = most, .result = UPATCH_TOO_LONG,
	};

	bpf_loop(size, __upatch_parse_next, &parse, 0);
	*value = parse.result ? 0 : parse.sum;
	return parse.result;
}

/* The same with one `-` or `+` allowed in front, and `least` <= *value <= `most`, where least <= 0 <= most. */
static __always_inline long upatch_parse_s64(const char *text, __u32 size, __u32 base, __s64 least, __s64 most,
					     __s64 *value) __upatch_sized;
static __always_inline long upatch_parse_s64(const char *text, __u32 size, __u32 base, __s64 least, __s64 most,
					     __s64 *value)
{
	bool negative = text[0] == '-';
	struct __upatch_parse parse = {
		.text = text, .mask = size - 1, .base = base, .result = UPATCH_TOO_LONG,
		.from = negative || text[0] == '+', .most = negative ? -(__u64)least : (__u64)most,
	};

	bpf_loop(size, __upatch_parse_next, &parse, 0);
	*value = parse.result ? 0 : negative ? -parse.sum : parse.sum;
	return parse.result;
}

#endif /* UPATCH_TEXT_H */
