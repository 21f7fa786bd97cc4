/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bounds what producers may put into a queue that a restart would empty: delay, time to run, size. See README.md. */
#include "upatch_sanitize.h"

/* Debian's beanstalkd 1.12-2+b1, amd64; stripped: the section gives the address */
UPATCH_BUILD_ID("390c9abc0ed93bd88403df76ab71a8ec7d1b51cf");

#define SECOND 1000000000LL
/* Where a Tube has its name; in 1.12 a reference counter is in front of it. */
#define TUBE_NAME 4

UPATCH_RULE(__u32, longest_delay) = 86400; /* seconds */
UPATCH_RULE(__u32, longest_ttr) = 3600;	   /* seconds */
UPATCH_RULE(__u32, largest_body) = 16384;  /* bytes */
UPATCH_STRING_LIST(exempt, 8, 64) = { "archive" };

UPATCH_COUNTER(__u64, jobs);
UPATCH_COUNTER(__u64, shortened);
UPATCH_COUNTER(__u64, refused);

enum limit { DELAY, TTR, BODY };

struct beyond {
	enum limit limit;
	__u32 asked; /* seconds or bytes */
	char tube[64];
};

/*
 * static Job *make_job_with_id(uint32 pri, int64 delay, int64 ttr, int body_size, Tube *tube, uint64 id): times in
 * nanoseconds; body_size with the two bytes of the line's end; id is 0 but for jobs read back from the log. NULL: OUT_OF_MEMORY.
 */
SEC("upatch/exe:make_job_with_id@0x48b0")
int UPATCH(bound_job, __u32 priority, __s64 delay, __s64 ttr, int body_size, const char *tube, __u64 id)
{
	struct beyond e = {};

	if (id)
		return UPATCH_CONTINUE;
	UPATCH_INC(jobs);
	/* A tube whose name can't be judged is not on the list. */
	if (upatch_read_str(e.tube, sizeof(e.tube), tube + TUBE_NAME) >= 0 &&
	    upatch_list_has(exempt, e.tube, sizeof(e.tube)) == 1)
		return UPATCH_CONTINUE;
	if (body_size - 2 > (__s64)largest_body) {
		e.limit = BODY;
		e.asked = body_size - 2;
		upatch_event(&e, sizeof(e));
		UPATCH_INC(refused);
		return upatch_return(ctx, NULL);
	}
	if (upatch_clamp_arg(ctx, 2, __s64, 0, longest_delay * SECOND)) {
		e.limit = DELAY;
		e.asked = (__u64)delay / SECOND;
		upatch_event(&e, sizeof(e));
		UPATCH_INC(shortened);
	}
	if (upatch_clamp_arg(ctx, 3, __s64, 0, longest_ttr * SECOND)) {
		e.limit = TTR;
		e.asked = (__u64)ttr / SECOND;
		upatch_event(&e, sizeof(e));
		UPATCH_INC(shortened);
	}
	return UPATCH_CONTINUE;
}
