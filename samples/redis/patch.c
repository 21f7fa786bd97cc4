/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses to RESTORE streams, whose dumps Redis doesn't check enough (CVE-2026-66373). See README.md. */
#include "upatch.h"

/* Debian's redis-tools 5:7.0.15-1~deb12u7, amd64 */
UPATCH_BUILD_ID("b2bcad6d23563e10222dc42e7a9b0e07f5c56033");

/* struct client of this build: int argc at 0x48, robj **argv at 0x50; the pointer in an robj is at 8. */
#define CLIENT_ARGC 0x48
#define CLIENT_ARGV 0x50
#define ROBJ_PTR 8

/* RESTORE key ttl payload [options] */
#define PAYLOAD 3

/* The first byte of a dump: the three encodings of a stream (rdb.h) */
#define STREAM_LISTPACKS 15
#define STREAM_LISTPACKS_2 19
#define STREAM_LISTPACKS_3 21

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

extern void addReplyError(void *client, const char *message __str) __ksym;

static long read_pointer(__u64 *value, __u64 address)
{
	return bpf_probe_read_user(value, sizeof(*value), (const void *)address);
}

SEC("upatch/exe:restoreCommand")
int UPATCH(refuse_streams, __u64 client)
{
	__u64 argv, object, payload;
	__u8 type;
	int argc;

	UPATCH_INC(hits);
	if (bpf_probe_read_user(&argc, sizeof(argc), (const void *)(client + CLIENT_ARGC)) || argc <= PAYLOAD)
		return UPATCH_CONTINUE;
	if (read_pointer(&argv, client + CLIENT_ARGV) || read_pointer(&object, argv + PAYLOAD * sizeof(__u64)) ||
	    read_pointer(&payload, object + ROBJ_PTR))
		return UPATCH_CONTINUE;
	if (bpf_probe_read_user(&type, sizeof(type), (const void *)payload))
		return UPATCH_CONTINUE;
	if (type != STREAM_LISTPACKS && type != STREAM_LISTPACKS_2 && type != STREAM_LISTPACKS_3)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	addReplyError((void *)client, "RESTORE of a stream is switched off by a live patch");
	return UPATCH_RETURN_VOID(ctx);
}
