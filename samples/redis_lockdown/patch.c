/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Switches three commands of a running Redis off, and on again by rules: KEYS, FLUSHALL, DEBUG. See README.md. */
#include "upatch.h"

/* Debian's redis-tools 5:7.0.15-1~deb12u7, amd64 */
UPATCH_BUILD_ID("b2bcad6d23563e10222dc42e7a9b0e07f5c56033");

/* 1 refuses the command, 0 lets it run. */
UPATCH_RULE(__u32, refuse_keys) = 1;
UPATCH_RULE(__u32, refuse_flushall) = 1;
UPATCH_RULE(__u32, refuse_debug) = 1;

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

extern void addReplyError(void *client, const char *message __str) __ksym;

SEC("upatch/exe:keysCommand")
int UPATCH(keys, void *client)
{
	UPATCH_INC(hits);
	if (!refuse_keys)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	addReplyError(client, "KEYS is switched off by a live patch: use SCAN");
	return UPATCH_RETURN_VOID(ctx);
}

SEC("upatch/exe:flushallCommand")
int UPATCH(flushall, void *client)
{
	UPATCH_INC(hits);
	if (!refuse_flushall)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	addReplyError(client, "FLUSHALL is switched off by a live patch");
	return UPATCH_RETURN_VOID(ctx);
}

SEC("upatch/exe:debugCommand")
int UPATCH(debug, void *client)
{
	UPATCH_INC(hits);
	if (!refuse_debug)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	addReplyError(client, "DEBUG is switched off by a live patch");
	return UPATCH_RETURN_VOID(ctx);
}
