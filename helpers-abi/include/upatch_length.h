/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * upatch_length.h: lengths and other numbers, clamped where the function takes them from: an argument register, memory of
 * the program, an array of struct iovec.
 *
 *	UPATCH_RULE(__u64, longest) = 0x10000;
 *
 *	if (upatch_clamp_arg(ctx, 3, size_t, 0, longest))
 *		UPATCH_INC(clamped);
 *	return UPATCH_CONTINUE;
 *
 * Results, buffers and double fetches: see upatch_text.h.
 */
#ifndef UPATCH_LENGTH_H
#define UPATCH_LENGTH_H

#include "upatch_text.h"

/* `value` as the nearest one of low to high; low <= high. All three are of one type. */
#define upatch_clamp(value, low, high)						\
	({									\
		__typeof__(value) __upatch_value = (value);			\
		__typeof__(value) __upatch_low = (low), __upatch_high = (high);	\
		__upatch_value < __upatch_low	 ? __upatch_low			\
		: __upatch_value > __upatch_high ? __upatch_high		\
						 : __upatch_value;		\
	})

/*
 * Clamps argument 1 to 6 of the function (a literal number), which has the integer type `type`, to low to high: true if it
 * was outside. Only the bits that belong to the type are looked at; when it was inside the register stays as it was.
 * No memory of the program is involved, so this is safe against every other thread. 6 steps.
 */
#define upatch_clamp_arg(ctx, number, type, low, high)				\
	({									\
		type __upatch_argument = (type)__upatch_reg##number(ctx);	\
		type __upatch_clamped = upatch_clamp(__upatch_argument, low, high);	\
		bool __upatch_changed = __upatch_clamped != __upatch_argument;	\
		if (__upatch_changed)						\
			__upatch_reg##number(ctx) = (unsigned long)__upatch_clamped;	\
		__upatch_changed;						\
	})
#define __upatch_reg1(ctx) (upatch_regs(ctx)->di)
#define __upatch_reg2(ctx) (upatch_regs(ctx)->si)
#define __upatch_reg3(ctx) (upatch_regs(ctx)->dx)
#define __upatch_reg4(ctx) (upatch_regs(ctx)->cx)
#define __upatch_reg5(ctx) (upatch_regs(ctx)->r8)
#define __upatch_reg6(ctx) (upatch_regs(ctx)->r9)

/*
 * Clamps the number of type `type` at `address` in the program's memory, as of a `size_t *length`: 1 if it was changed, 0 if
 * it was inside, UPATCH_UNREADABLE if it can't be read or written. Writes only what changes. Needs `apply --allow-write`.
 * Another thread may write there between the patch and the function. One read, at most one write, 15 steps.
 */
#define upatch_clamp_user(address, type, low, high)				\
	({									\
		const void *__upatch_address = (const void *)(address);		\
		type __upatch_found = 0, __upatch_wanted;			\
		long __upatch_result = UPATCH_UNREADABLE;			\
		if (!bpf_probe_read_user(&__upatch_found, sizeof(type), __upatch_address)) {	\
			__upatch_wanted = upatch_clamp(__upatch_found, low, high);	\
			if (__upatch_wanted == __upatch_found)			\
				__upatch_result = 0;				\
			else if (!bpf_probe_write_user((void *)__upatch_address, &__upatch_wanted, sizeof(type)))	\
				__upatch_result = 1;				\
		}								\
		__upatch_result;						\
	})

/* --------------------------------------------------------------------------------------------------------------------
 * struct iovec of readv(2), writev(2), sendmsg(2) and their kind
 */
#define UPATCH_IOV_MAX 1024
/* What the kernel moves at most in one call is less (MAX_RW_COUNT); a sum beyond this is refused by it with EINVAL. */
#define UPATCH_SSIZE_MAX 0x7fffffffffffffffULL

struct upatch_iovec {
	__u64 base;
	__u64 length;
};

/* An array of iovecs in numbers, bytes. */
struct upatch_iovecs {
	__u64 sum;     /* of all lengths */
	__u64 longest; /* length */
};

/* As many as make the size of one read a number under a power of two. */
#define __UPATCH_IOV_STEP 7
struct __upatch_iovs {
	__u64 address, left, sum, longest, over;
	long result;
};

/* Adds up the next few; the last ones are read with what is behind them zero. */
__upatch_body __upatch_iov_next(__u32 index __attribute__((unused)), void *data)
{
	struct upatch_iovec part[__UPATCH_IOV_STEP + 1] = {};
	struct __upatch_iovs *walk = data;
	__u64 count = walk->left < __UPATCH_IOV_STEP ? walk->left : __UPATCH_IOV_STEP;
	__u64 bytes = count * sizeof(part[0]);

	if (!count)
		return 1;
	__upatch_opaque(bytes); /* or the compiler knows that the mask says nothing new, and the checks don't */
	bytes &= sizeof(part) - 1;
	if (bpf_probe_read_user(part, bytes, (const void *)walk->address)) {
		walk->result = UPATCH_UNREADABLE;
		return 1;
	}
	for (int i = 0; i < __UPATCH_IOV_STEP; i++) {
		__u64 length = part[i].length, beyond;

		/* Bit 63 of `over` is set once a length or sum is over SSIZE_MAX; before, nothing wraps. */
		walk->sum += length;
		walk->over |= length | walk->sum;
		beyond = (__s64)(walk->longest - length) >> 63;
		__upatch_opaque(beyond);
		walk->longest += (length - walk->longest) & beyond;
	}
	walk->address += bytes;
	walk->left -= count;
	return 0;
}

/*
 * Adds up the `count` iovecs at `address`: 0, and *found says their sum and the longest; both are 0 without a result.
 * UPATCH_INVALID if count is negative or over UPATCH_IOV_MAX, as for the system calls; UPATCH_UNREADABLE; UPATCH_OVERFLOW if the
 * sum is over SSIZE_MAX, in 64 bits that don't wrap. A patch checks "any over N" by found->longest > N.
 * What is wrong first counts. One read and 155 steps for each 7 iovecs.
 */
static __always_inline long upatch_iovec_sum(const void *address, long count, struct upatch_iovecs *found)
{
	struct __upatch_iovs walk = { .address = (__u64)address, .left = count };

	found->sum = found->longest = 0;
	if (count < 0 || count > UPATCH_IOV_MAX)
		return UPATCH_INVALID;
	bpf_loop(UPATCH_IOV_MAX / __UPATCH_IOV_STEP + 1, __upatch_iov_next, &walk, 0);
	if (walk.over >> 63)
		return UPATCH_OVERFLOW;
	if (!walk.result) {
		found->sum = walk.sum;
		found->longest = walk.longest;
	}
	return walk.result;
}

#endif /* UPATCH_LENGTH_H */
