/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses to SET keys that are not UTF-8, or too long. See README.md. */
#include "upatch_text.h"

/* Debian's redis-tools 5:7.0.15-1~deb12u7, amd64 */
UPATCH_BUILD_ID("b2bcad6d23563e10222dc42e7a9b0e07f5c56033");

/* struct client of this build: int argc at 0x48, robj **argv at 0x50; the pointer in an robj is at 8. */
#define CLIENT_ARGC 0x48
#define CLIENT_ARGV 0x50
#define ROBJ_PTR 8

/* In front of a string's first byte is one that says in its low three bits how its length is kept (sds.h). */
#define SDS_5 0	 /* in the upper five bits */
#define SDS_8 1	 /* in the byte three in front of the string */
#define SDS_16 2 /* longer than fits into our buffer, as are all others */

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, not_utf8);
UPATCH_COUNTER(__u64, too_long);

extern void addReplyError(void *client, const char *message __str) __ksym;

static long read_pointer(__u64 *value, __u64 address)
{
	return bpf_probe_read_user(value, sizeof(*value), (const void *)address);
}

SEC("upatch/exe:setCommand")
int UPATCH(refuse_keys, __u64 client)
{
	__u64 argv, object, key;
	__u8 flags, length;
	char text[256];
	long flaw;
	int argc;

	UPATCH_INC(hits);
	if (bpf_probe_read_user(&argc, sizeof(argc), (const void *)(client + CLIENT_ARGC)) || argc < 2)
		return UPATCH_CONTINUE;
	if (read_pointer(&argv, client + CLIENT_ARGV) || read_pointer(&object, argv + sizeof(__u64)) ||
	    read_pointer(&key, object + ROBJ_PTR))
		return UPATCH_CONTINUE;
	if (bpf_probe_read_user(&flags, sizeof(flags), (const void *)(key - 1)) ||
	    bpf_probe_read_user(&length, sizeof(length), (const void *)(key - 3)))
		return UPATCH_CONTINUE;
	if ((flags & 7) == SDS_5)
		length = flags >> 3;
	if ((flags & 7) >= SDS_16) {
		UPATCH_INC(too_long);
		addReplyError((void *)client, "a live patch allows no keys over 255 bytes");
		return UPATCH_RETURN_VOID(ctx);
	}
	flaw = upatch_read_text(text, sizeof(text), (const void *)key, length);
	if (flaw >= 0)
		flaw = upatch_utf8(text, sizeof(text));
	if (flaw != UPATCH_ILLEGAL)
		return UPATCH_CONTINUE;
	UPATCH_INC(not_utf8);
	addReplyError((void *)client, "a live patch allows only keys of UTF-8 without NUL");
	return UPATCH_RETURN_VOID(ctx);
}
