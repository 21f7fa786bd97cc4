/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * upatch_list.h: allowlists and denylists in the arena, edited by `upatch rules set` while the patch runs.
 *
 *	UPATCH_STRING_LIST(hosts, 16, 64) = { "localhost", "updates.example.org" };
 *	UPATCH_NUMBER_LIST(__u32, ports, 8) = { 80, 443 };
 *
 *	if (upatch_list_has(hosts, host, sizeof(host)) != 1)
 *		return upatch_return(ctx, -1);
 *
 *	$ upatch rules set --pid 1234 'hosts[2]="mirror.example.org"' 'ports[2]=8080'
 *	$ upatch rules set --pid 1234 'hosts[0]=""'
 *
 * An entry is one element of a plain array; the empty string and the number 0 are entries that aren't used. A list without
 * used entries has nothing on it: an allowlist then allows nothing. (Whether 0 itself is on a list of numbers, say root on a
 * list of users, its rule NAME_zero says: 0 no, 1 yes.)
 *
 * Editing. A number is replaced by one store. A string is not, so each list has a word NAME_generation, which `rules set` makes
 * odd before it writes and even again afterwards. A look-up that begins or ends with an odd word, or ends with another than it
 * began with, has perhaps seen half an entry and says UPATCH_BUSY: neither yes nor no, as every negative result. So
 * `!= 1` refuses for an allowlist, `!= 0` refuses for a denylist; nothing half-written is ever taken for a permission. An editor
 * that dies in between leaves the word odd: the list answers UPATCH_BUSY until the next `rules set`.
 * On a denylist, put the new entry into a free place before you clear the old one.
 *
 * A program that maps the arena can write it: these lists bind the program's callers, not code that already runs in it.
 */
#ifndef UPATCH_LIST_H
#define UPATCH_LIST_H

#include "upatch_text.h"

/* Declares a list of `entries` strings of up to `bytes` bytes; a string that fills all of them needs no NUL. */
#define UPATCH_STRING_LIST(name, entries, bytes)				\
	UPATCH_RULE(__u32, name##_generation) = 0;				\
	char __arena name[entries][bytes] __attribute__((btf_decl_tag("upatch:rule")))
/* Declares a list of `entries` numbers of an integer type. */
#define UPATCH_NUMBER_LIST(type, name, entries)					\
	UPATCH_RULE(__u8, name##_zero) = 0;					\
	type __arena name[entries] __attribute__((btf_decl_tag("upatch:rule")))

enum __upatch_match { __UPATCH_EXACT, __UPATCH_PREFIX, __UPATCH_BENEATH };

struct __upatch_list {
	const char *text;
	__u64 mask;
	const char __arena *list;
	__u64 end, bytes, how; /* of the list, of an entry */
	__u64 entry, at;       /* where the entry begins in the list, and how much of it has matched */
	long found;
};

/* One byte of one entry. On to the entry's next byte if it is the text's, else to the next entry. */
__upatch_body __upatch_list_next(__u32 index __attribute__((unused)), void *data)
{
	struct __upatch_list *walk = data;
	__u64 at = walk->at;
	__u8 wanted = 0, found = at <= walk->mask ? walk->text[at & walk->mask] : 0;

	if (walk->entry >= walk->end)
		return 1;
	if (at < walk->bytes)
		wanted = *(const volatile char __arena *)&walk->list[walk->entry + at];
	if (wanted && wanted == found) {
		walk->at = at + 1;
		return 0;
	}
	/* The entry's end, and the text agrees with it so far. */
	if (!wanted && at) {
		__u8 last = walk->text[(at - 1) & walk->mask];

		if (!found || walk->how == __UPATCH_PREFIX ||
		    (walk->how == __UPATCH_BENEATH && (found == '/' || last == '/'))) {
			walk->found = 1;
			return 1;
		}
	}
	walk->entry += walk->bytes;
	walk->at = 0;
	return 0;
}

static __always_inline long __upatch_look_up(const volatile __u32 __arena *generation, const char __arena *list,
					     __u64 list_size, __u64 bytes, const char *text, __u32 size,
					     enum __upatch_match how) __upatch_sized;
static __always_inline long __upatch_look_up(const volatile __u32 __arena *generation, const char __arena *list,
					     __u64 list_size, __u64 bytes, const char *text, __u32 size,
					     enum __upatch_match how)
{
	struct __upatch_list walk = {
		.text = text, .mask = size - 1, .list = list, .end = list_size, .bytes = bytes, .how = how,
	};
	__u32 before = *generation;

	if (before & 1)
		return UPATCH_BUSY;
	asm volatile("" ::: "memory");
	bpf_loop(list_size + list_size / bytes, __upatch_list_next, &walk, 0);
	asm volatile("" ::: "memory");
	return *generation == before ? walk.found : UPATCH_BUSY;
}

#define __upatch_look_up_in(name, text, size, how)				\
	__upatch_look_up(&name##_generation, &name[0][0], sizeof(name), sizeof(name[0]), text, size, how)

/*
 * Is the text on the list? 1 yes, 0 no, UPATCH_BUSY. The empty text never is. `text` is a buffer of `size` bytes with a NUL, see
 * upatch_text.h. Comparing is by bytes: see upatch_lower (upatch_text.h) for names in which case doesn't count.
 * 35 steps an entry, and as many for each byte by which an entry and the text agree.
 */
#define upatch_list_has(name, text, size) __upatch_look_up_in(name, text, size, __UPATCH_EXACT)
/* Does an entry begin the text? "/srv" begins "/srvx" too: for paths take the next one. */
#define upatch_list_has_prefix(name, text, size) __upatch_look_up_in(name, text, size, __UPATCH_PREFIX)
/* Is the text, a normalised path (upatch_path.h), one of the entries, or beneath one of them? */
#define upatch_list_has_beneath(name, text, size) __upatch_look_up_in(name, text, size, __UPATCH_BENEATH)

struct __upatch_numbers {
	const char __arena *list;
	__u64 at, end, size, wanted;
	long found;
};

__upatch_body __upatch_numbers_next(__u32 index __attribute__((unused)), void *data)
{
	struct __upatch_numbers *walk = data;
	const volatile char __arena *entry = walk->list + walk->at;
	__u64 number;

	if (walk->at >= walk->end)
		return 1;
	switch (walk->size) {
	case 1: number = *(const volatile __u8 __arena *)entry; break;
	case 2: number = *(const volatile __u16 __arena *)entry; break;
	case 4: number = *(const volatile __u32 __arena *)entry; break;
	default: number = *(const volatile __u64 __arena *)entry; break;
	}
	walk->at += walk->size;
	walk->found = number == walk->wanted;
	return walk->found;
}

static __always_inline long __upatch_numbers_have(const void __arena *list, __u64 bytes, __u64 size, __u64 wanted)
{
	struct __upatch_numbers walk = { .list = list, .end = bytes, .size = size, .wanted = wanted };

	bpf_loop(bytes / size, __upatch_numbers_next, &walk, 0);
	return walk.found;
}

/* `value`, cut to the type of the entries, as an unsigned number of their size */
#define __upatch_as_entry(name, value)						\
	((__u64)(__typeof__(name[0] + 0))(value) & (~0ULL >> (64 - 8 * sizeof(name[0]))))

/*
 * Is the number on the list? 1 yes, 0 no. `value` must be of the entries' type: a larger one is cut to it.
 * 25 steps an entry.
 */
#define upatch_number_list_has(name, value)					\
	(__upatch_as_entry(name, value) ? __upatch_numbers_have(name, sizeof(name), sizeof(name[0]),	\
								__upatch_as_entry(name, value))		\
					: *(volatile __u8 __arena *)&name##_zero == 1)

#endif /* UPATCH_LIST_H */
