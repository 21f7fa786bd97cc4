/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* No new context accepts less than TLS 1.2, whatever the program asks for. See README.md. */
#include "upatch.h"

/* <openssl/ssl.h> */
#define SSL_CTRL_SET_MIN_PROTO_VERSION 123
#define TLS1_2_VERSION 0x303

/* DTLS counts in other numbers, which are all greater. */
UPATCH_RULE(__s64, least) = TLS1_2_VERSION;
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, raised);

SEC("upatch/libssl.so.3:SSL_CTX_ctrl")
int UPATCH(raise_minimum, void *context, int command, long version)
{
	if (command != SSL_CTRL_SET_MIN_PROTO_VERSION)
		return UPATCH_CONTINUE;
	UPATCH_INC(hits);
	if (version >= least)
		return UPATCH_CONTINUE;
	UPATCH_INC(raised);
	PT_REGS_PARM3(ctx) = least;
	return UPATCH_CONTINUE;
}
