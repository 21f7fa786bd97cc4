/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Nothing lives longer than a minute: every expiry of never, or of more, becomes 60 seconds. See README.md. */
#include "upatch.h"

/* Debian's memcached 1.6.18-1, amd64; stripped: apply with --offset 0xa790 */
UPATCH_BUILD_ID("729230f14537e8751a677c2721c1d16dedd92441");

UPATCH_RULE(__s64, longest) = 60;
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, clamped);

/* Over 30 days an expiry is a date, so memcached writes a negative one, which means expired already, as a date of 1970. */
#define ALREADY_EXPIRED (30 * 24 * 60 * 60 + 1)

/* static rel_time_t realtime(const time_t expiry): 0 is never */
SEC("upatch/exe:realtime")
int UPATCH(clamp_expiry, long expiry)
{
	UPATCH_INC(hits);
	if ((expiry > 0 && expiry <= longest) || expiry == ALREADY_EXPIRED)
		return UPATCH_CONTINUE;
	UPATCH_INC(clamped);
	PT_REGS_PARM1(ctx) = longest;
	return UPATCH_CONTINUE;
}
