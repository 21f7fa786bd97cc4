/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Refuses absurd lengths before libssh2 adds to them in 32 bits (CVE-2026-7598). See README.md. */
#include "upatch.h"

#define LIBSSH2_ERROR_PROTO -14

/* Debian's libssh2-1 1.10.0-3+b1, amd64 */
UPATCH_BUILD_ID("fc14181ac15ba5b6f2fab612c5bac8ce81cb405a");

UPATCH_RULE(__u32, longest) = 0x10000;
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

SEC("upatch/libssh2.so.1:libssh2_userauth_password_ex")
int UPATCH(bound_lengths, void *session, const char *user, unsigned int user_len,
	   const char *password, unsigned int password_len)
{
	UPATCH_INC(hits);
	if (user_len <= longest && password_len <= longest)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	return upatch_return(ctx, LIBSSH2_ERROR_PROTO);
}
