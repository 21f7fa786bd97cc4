/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses domain names whose decoded form might not fit its buffer (CVE-2022-3786, CVE-2022-3602). See README.md. */
#include "upatch.h"

/* _openssl.abi3.so of PyPI's cryptography 38.0.1, manylinux_2_28, x86-64: OpenSSL 3.0.5 */
UPATCH_BUILD_ID("4f876922d31672969f3ec26221ec19499a6c0569");

/* With its NUL. OpenSSL's own buffers have 256 bytes; a domain name has at most 253. */
#define LONGEST 256

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

/*
 * Where in a label a byte stands. A label that begins with "xn--" is decoded: each of its bytes may become a character
 * of up to 4 bytes.
 */
enum place { BEGIN, X, XN, XN_, DECODED, PLAIN };
static const __u8 most_bytes[8] = { [BEGIN] = 1, [X] = 1, [XN] = 1, [XN_] = 1, [DECODED] = 4, [PLAIN] = 1 };

/* Which place a byte leads to, by its class and the place before: a table, so that the loop has no branches. */
enum class { OTHER, DOT, LETTER_X, LETTER_N, DASH };
static const __u8 class_of[256] = { ['.'] = DOT, ['x'] = LETTER_X, ['n'] = LETTER_N, ['-'] = DASH };
#define AT(class, place) ((class) * 8 + (place))
#define PLACES 64
#define FROM_ALL(class, to)							\
	[AT(class, BEGIN)] = to, [AT(class, X)] = to, [AT(class, XN)] = to,	\
	[AT(class, XN_)] = to, [AT(class, PLAIN)] = to
static const __u8 next_place[PLACES] = {
	FROM_ALL(DOT, BEGIN), [AT(DOT, DECODED)] = BEGIN,
	FROM_ALL(OTHER, PLAIN), [AT(OTHER, DECODED)] = DECODED,
	[AT(LETTER_X, BEGIN)] = X, [AT(LETTER_X, X)] = PLAIN, [AT(LETTER_X, XN)] = PLAIN, [AT(LETTER_X, XN_)] = PLAIN,
	[AT(LETTER_X, DECODED)] = DECODED, [AT(LETTER_X, PLAIN)] = PLAIN,
	[AT(LETTER_N, BEGIN)] = PLAIN, [AT(LETTER_N, X)] = XN, [AT(LETTER_N, XN)] = PLAIN, [AT(LETTER_N, XN_)] = PLAIN,
	[AT(LETTER_N, DECODED)] = DECODED, [AT(LETTER_N, PLAIN)] = PLAIN,
	[AT(DASH, BEGIN)] = PLAIN, [AT(DASH, X)] = PLAIN, [AT(DASH, XN)] = XN_, [AT(DASH, XN_)] = DECODED,
	[AT(DASH, DECODED)] = DECODED, [AT(DASH, PLAIN)] = PLAIN,
};

/* The most bytes that `name` may become, with its NUL; LONGEST or more if it is too long to say. */
static __noinline __u64 decoded_size(const char *name)
{
	char copy[LONGEST] = {};
	__u64 bytes = 1;
	__u32 place = BEGIN;
	long size;

	size = bpf_probe_read_user_str(copy, sizeof(copy), name);
	if (size < 0) /* the function will find out by itself */
		return 0;
	if (size == LONGEST)
		return LONGEST;
	for (int i = 0; i < LONGEST; i++) {
		__u8 byte = copy[i];

		if (!byte)
			break;
		place = next_place[AT(class_of[byte], place) % PLACES];
		bytes += most_bytes[place % 8];
	}
	return bytes;
}

/* int ossl_a2ulabel(const char *in, char *out, size_t *outlen): 1 done, 0 too long, -1 not valid */
SEC("upatch/_openssl.abi3.so:ossl_a2ulabel")
int UPATCH(refuse_overlong_names, const char *in, char *out, const __u64 *outlen)
{
	__u64 room;

	UPATCH_INC(hits);
	/* It gives up copying at one byte less than it was told, but not writing dots. */
	if (bpf_probe_read_user(&room, sizeof(room), outlen) || decoded_size(in) < room)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	return upatch_return(ctx, -1);
}
