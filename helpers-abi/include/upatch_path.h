/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * upatch_path.h: paths, judged and normalised by their text alone.
 *
 *	char path[256];
 *	long length = upatch_read_str(path, sizeof(path), name);
 *
 *	length = upatch_path_normalize(path, sizeof(path), length, UPATCH_DOTDOT_REFUSE);
 *	if (length < 0 || !upatch_path_is_beneath(path, "/srv/www"))
 *		return upatch_return(ctx, -1);
 *
 * What this does NOT do. It knows no file system: a symbolic link beneath /srv/www may lead anywhere, `..` behind a
 * symbolic link is not what its text says (so refuse `..` where links are possible), a mount or a rename changes what
 * a path means. A relative path is relative to a directory that the text doesn't tell. And the program may change its string
 * after the patch has read it (double fetch, see upatch_text.h): a patch that only refuses is safe against mistakes and
 * against strangers who choose the string once, not against a thread of the program that rewrites it meanwhile.
 * To hand on the normalised path, write it back: bpf_probe_write_user (needs `apply --allow-write`) to the program's buffer,
 * never with more bytes than were read; it is still the program's memory.
 */
#ifndef UPATCH_PATH_H
#define UPATCH_PATH_H

#include "upatch_text.h"

/* What upatch_path_check finds. */
enum upatch_path_finding {
	UPATCH_PATH_DOTDOT = 1,	   /* has a component `..` */
	UPATCH_PATH_ESCAPES = 2,   /* a `..` climbs above where the path begins, at the root or the current directory */
	UPATCH_PATH_REDUNDANT = 4, /* has `//`, a component `.`, or a slash at its end: normalising would change it */
	UPATCH_PATH_ABSOLUTE = 8,  /* begins with a slash */
	UPATCH_PATH_EMPTY = 16,	   /* is no path */
};

/*
 * A component, as far as it was read: 0 nothing, 1 `.`, 2 `..`, 3 a name. Behind each comes 0 a slash, 1 a dot, 2 another byte,
 * 3 the end. The result's low two bits are what the component is now; the rest says what came to its end.
 */
#define __UPATCH_UP 0x10	/* `..` */
#define __UPATCH_NAME 0x20	/* a name */
#define __UPATCH_ENDS 0x40	/* anything */
#define __UPATCH_VOID 0x80	/* `.`, or nothing */
static const __u8 __upatch_path_next[16] __attribute__((unused)) = {
	[0x0] = __UPATCH_ENDS | __UPATCH_VOID, 1, 3, __UPATCH_ENDS | __UPATCH_VOID,
	[0x4] = __UPATCH_ENDS | __UPATCH_VOID, 2, 3, __UPATCH_ENDS | __UPATCH_VOID,
	[0x8] = __UPATCH_ENDS | __UPATCH_UP, 3, 3, __UPATCH_ENDS | __UPATCH_UP,
	[0xc] = __UPATCH_ENDS | __UPATCH_NAME, 3, 3, __UPATCH_ENDS | __UPATCH_NAME,
};
static const __u8 __upatch_path_class[256] __attribute__((unused)) = {
	[0x00] = 3, [0x01 ... 0x2d] = 2, ['.'] = 1, ['/'] = 0, [0x30 ... 0xff] = 2,
};

#define __upatch_path_step(kind, byte)						\
	__upatch_path_next[(((kind) & 3) << 2 | __upatch_path_class[(__u8)(byte)]) & 15]

struct __upatch_path {
	char *path;
	__u64 mask, kind, seen, voids, end, to, mark;
	__s64 depth, above;
	long result;
};

__upatch_body __upatch_path_look(__u32 index, void *data)
{
	struct __upatch_path *walk = data;
	__u8 byte = walk->path[index & walk->mask];
	__u64 kind = __upatch_path_step(walk->kind, byte), at = walk->to + index;

	walk->kind = kind;
	walk->seen |= kind;
	walk->depth += (kind >> 5 & 1) - (kind >> 4 & 1);
	walk->above |= walk->depth;
	/* The slash in front of an absolute path is not redundant; nor are "/" and "." themselves. */
	if (at && (byte || at > 1))
		walk->voids |= kind;
	if (byte)
		return 0;
	walk->result = (walk->seen >> 4 & 1) | (walk->above >> 62 & 2) | (walk->voids >> 5 & 4);
	return 1;
}

/*
 * What is there to say about the path? A set of enum upatch_path_finding, 0 for `a/b`. UPATCH_TOO_LONG without a NUL.
 * 50 steps a byte.
 */
static __always_inline long upatch_path_check(const char *path, __u32 size) __upatch_sized;
static __always_inline long upatch_path_check(const char *path, __u32 size)
{
	struct __upatch_path walk = { .path = (char *)path, .mask = size - 1, .result = UPATCH_TOO_LONG };

	if (!path[0])
		return UPATCH_PATH_EMPTY;
	bpf_loop(size, __upatch_path_look, &walk, 0);
	return walk.result >= 0 && path[0] == '/' ? walk.result | UPATCH_PATH_ABSOLUTE : walk.result;
}

#define UPATCH_PATH_MAX 4096
#define __UPATCH_PATH_PIECE 64

__upatch_body __upatch_path_piece(__u32 index __attribute__((unused)), void *data)
{
	struct __upatch_path *whole = data, walk;
	char piece[__UPATCH_PATH_PIECE] = {};
	long got = bpf_probe_read_user_str(piece, sizeof(piece), (const void *)whole->end);

	if (got <= 0) {
		whole->result = UPATCH_UNREADABLE;
		return 1;
	}
	/* The NUL of a full piece is not the string's. */
	if (got >= __UPATCH_PATH_PIECE)
		got = __UPATCH_PATH_PIECE - 1;
	if (!whole->to)
		whole->mark = (__u8)piece[0];
	walk = (struct __upatch_path){
		.path = piece, .mask = sizeof(piece) - 1, .kind = whole->kind, .seen = whole->seen, .voids = whole->voids,
		.to = whole->to, .depth = whole->depth, .above = whole->above, .result = UPATCH_TOO_LONG,
	};
	bpf_loop(got, __upatch_path_look, &walk, 0);
	whole->kind = walk.kind;
	whole->seen = walk.seen;
	whole->voids = walk.voids;
	whole->depth = walk.depth;
	whole->above = walk.above;
	whole->result = walk.result;
	whole->to += got;
	whole->end += got;
	return walk.result >= 0;
}

/*
 * As upatch_path_check, of the string at `address` itself: for paths of up to UPATCH_PATH_MAX - 1 bytes (about: the limit is seen
 * at the end of a piece), which fit into no buffer. They are read in pieces, each byte once. UPATCH_UNREADABLE.
 * 50 steps a byte and one read for each 63 bytes.
 */
static __always_inline long upatch_path_check_at(const char *address)
{
	struct __upatch_path whole = { .end = (__u64)address, .result = UPATCH_TOO_LONG };

	bpf_loop((UPATCH_PATH_MAX + __UPATCH_PATH_PIECE - 2) / (__UPATCH_PATH_PIECE - 1), __upatch_path_piece, &whole, 0);
	if (whole.result < 0)
		return whole.result;
	if (!whole.mark)
		return UPATCH_PATH_EMPTY;
	return whole.mark == '/' ? whole.result | UPATCH_PATH_ABSOLUTE : whole.result;
}

enum upatch_dotdot {
	UPATCH_DOTDOT_REFUSE,  /* UPATCH_ESCAPES wherever a component is `..` */
	UPATCH_DOTDOT_RESOLVE, /* `a/..` goes; UPATCH_ESCAPES where nothing is left for a `..` to take away */
};

/*
 * From the end to the beginning, so that how many names are to go (`depth`) is known before they come. What is kept is written
 * from the end on, towards the beginning, a name and then the slash in front of it; `mark` is where the current component's
 * right end is to be. Writing never overtakes reading.
 */
__upatch_body __upatch_path_back(__u32 index, void *data)
{
	struct __upatch_path *walk = data;
	__s64 from = walk->end - 1 - index;
	/* In front of a path's first byte there is a slash, so to speak. */
	__u8 byte = from < 0 ? '/' : walk->path[from & walk->mask];
	__u64 kind = __upatch_path_step(walk->kind, byte);

	walk->kind = kind;
	walk->seen |= kind;
	walk->to--;
	walk->path[walk->to & walk->mask] = byte;
	if (!(kind & __UPATCH_ENDS))
		return 0;
	if (!(kind & __UPATCH_NAME) || walk->depth)
		walk->to = walk->mark; /* dropped */
	if (kind & __UPATCH_UP)
		walk->depth++;
	else if (walk->depth && (kind & __UPATCH_NAME))
		walk->depth--;
	walk->mark = walk->to;
	return 0;
}

__upatch_body __upatch_path_move(__u32 index, void *data)
{
	struct __upatch_path *walk = data;
	__u8 byte = walk->path[(walk->to + index) & walk->mask];

	walk->path[index & walk->mask] = byte;
	return !byte;
}

/*
 * Normalises the path in place: one slash between components, none at the end, no component `.`; `..` as `dotdot` says.
 * What has no component left is `/` or `.`. `length` is what upatch_read_str gave; a negative one is handed on.
 * The result is the new length. UPATCH_INVALID if empty (the kernel says ENOENT); UPATCH_ESCAPES, and the buffer then
 * holds nothing of use. 90 steps a byte.
 */
static __always_inline long upatch_path_normalize(char *path, __u32 size, long length, enum upatch_dotdot dotdot)
	__upatch_sized;
static __always_inline long upatch_path_normalize(char *path, __u32 size, long length, enum upatch_dotdot dotdot)
{
	const __u64 end = length & (size - 1);
	bool absolute = path[0] == '/';
	struct __upatch_path walk = { .path = path, .mask = size - 1, .end = end, .to = end, .mark = end };

	if (length < 0)
		return length;
	if (!length)
		return UPATCH_INVALID;
	bpf_loop(end + 1, __upatch_path_back, &walk, 0);
	if (dotdot == UPATCH_DOTDOT_REFUSE ? (walk.seen & __UPATCH_UP) != 0 : walk.depth != 0)
		return UPATCH_ESCAPES;
	if (walk.to == end) {
		path[0] = absolute ? '/' : '.';
		path[1] = 0;
		return 1;
	}
	/* A relative path has a slash too many. */
	walk.to += !absolute;
	bpf_loop(size, __upatch_path_move, &walk, 0);
	return (end - walk.to) & (size - 1);
}

/*
 * Is the normalised path the directory `root`, a string constant without a slash at its end, or beneath it? "/srv/www2" is
 * not beneath "/srv/www". Everything absolute is beneath "/". 20 steps, and one a byte of `root`.
 */
#define upatch_path_is_beneath(path, root)					\
	({									\
		_Static_assert(sizeof(root) - 1 < sizeof(path), "longer than the buffer");	\
		_Static_assert(sizeof(root) > 1, "an empty root");		\
		const char *__upatch_path = (path);				\
		char __upatch_behind = __upatch_path[sizeof(root) - 1];		\
		!bpf_strncmp(__upatch_path, sizeof(root) - 1, root) &&		\
			((root)[sizeof(root) - 2] == '/' || __upatch_behind == '/' || !__upatch_behind);	\
	})

#endif /* UPATCH_PATH_H */
