/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Nothing beneath a .git, and what else was deployed by mistake, is served. See README.md. */
#include "upatch_sanitize.h"

/* Debian's lighttpd 1.4.69-1, amd64; stripped, but it exports its functions to its modules */
UPATCH_BUILD_ID("c51e510878e341051863d1cbd74fb880c17a8b6d");

#define PERMISSION_DENIED 13 /* EACCES */
#define NAME_BYTES 32

UPATCH_STRING_LIST(hidden, 8, NAME_BYTES) = { ".git", ".svn", ".env", ".htpasswd" };
UPATCH_RULE(bool, observe) = false;
UPATCH_COUNTER(__u64, looked_up);
UPATCH_COUNTER(__u64, refused);
UPATCH_COUNTER(__u64, unjudged);

/* lighttpd's struct buffer */
struct buffer {
	const char *text;
	__u32 used; /* with its NUL; 0 is empty */
	__u32 size;
};

struct refusal {
	char path[80];
};

/* stat_cache_entry *stat_cache_get_entry(const buffer *name): NULL and errno; EACCES becomes 403. */
SEC("upatch/exe:stat_cache_get_entry")
int UPATCH(hide, const struct buffer *name)
{
	char path[256], component[NAME_BYTES] = {};
	struct refusal e = {};
	struct buffer b;
	__u32 length = 0;

	UPATCH_INC(looked_up);
	if (bpf_probe_read_user(&b, sizeof(b), name) || upatch_read_str(path, sizeof(path), b.text) < 0) {
		UPATCH_INC(unjudged);
		return UPATCH_CONTINUE;
	}
	for (int i = 0; i < (int)sizeof(path) && can_loop; i++) {
		char c = path[i];

		if (c && c != '/') {
			/* Longer than any entry: it stays full, and is on no list. */
			if (length < NAME_BYTES)
				component[length++ & (NAME_BYTES - 1)] = c;
			continue;
		}
		if (length < NAME_BYTES) {
			component[length] = 0;
			if (upatch_list_has(hidden, component, sizeof(component)) != 0)
				goto refuse;
		}
		length = 0;
		if (!c)
			break;
	}
	return UPATCH_CONTINUE;
refuse:
	__builtin_memcpy(e.path, path, sizeof(e.path) - 1);
	upatch_event(&e, sizeof(e));
	UPATCH_INC(refused);
	if (observe)
		return UPATCH_CONTINUE;
	upatch_set_errno(PERMISSION_DENIED);
	return upatch_return(ctx, NULL);
}
