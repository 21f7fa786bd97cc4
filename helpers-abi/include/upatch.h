/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * upatch.h: what a patch is written with. It includes nothing; `upatch build` brings it along.
 *
 *	#include "upatch.h"
 *
 *	UPATCH_BUILD_ID("6b1d7dd26e5ed2a2");
 *	UPATCH_COUNTER(__u64, refused);
 *
 *	SEC("upatch/libssh2.so.1:libssh2_userauth_password_ex")
 *	int UPATCH(clamp, void *session, const char *user, unsigned int user_len)
 *	{
 *		if (user_len <= 0x10000)
 *			return UPATCH_CONTINUE;
 *		UPATCH_INC(refused);
 *		return upatch_return(ctx, -14);
 *	}
 *
 * Everything below can be used beside <linux/types.h>, <linux/bpf.h>, <linux/ptrace.h> and libbpf's <bpf/bpf_helpers.h>
 * and <bpf/bpf_tracing.h>, included before or after. A vmlinux.h comes first, as it always must.
 *
 * A patch is compiled by clang 19 or newer: -target bpf -mcpu=v4 -O2 -g -std=gnu11 (or later).
 *
 * There is no C library in a patch: no strcmp, no malloc, no printf, and most headers of /usr/include don't compile for BPF. The kernel's
 * do, so error numbers come from <linux/errno.h>; <stddef.h> works, the types of <stdint.h> and <stdbool.h> are here already.
 * All functions of a patch together have a stack of 512 bytes. A larger buffer can be `static char __arena buffer[4096];`, given to
 * helpers as `(void *)buffer`; all threads then share it. Plain global and static variables live in the arena as well:
 * shared with forked children, and shown by `telemetry dump`, but only rules can be set.
 */
#ifndef UPATCH_H
#define UPATCH_H

#ifndef __bpf__
#error "upatch.h is for BPF programs: compile with `upatch build`, or clang -target bpf -mcpu=v4 -O2 -g"
#endif

/* --------------------------------------------------------------------------------------------------------------------
 * Types. Repeating a typedef is fine in C11, so these don't disturb <linux/types.h> or <stdint.h>. vmlinux.h has its own.
 */
#ifndef __VMLINUX_H__
typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;

typedef __INT8_TYPE__ int8_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __INT16_TYPE__ int16_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __INT32_TYPE__ int32_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef __SIZE_TYPE__ size_t;

#if !defined(bool) && __STDC_VERSION__ < 202000L
typedef _Bool bool;
#define true 1
#define false 0
#endif
#endif /* __VMLINUX_H__ */

#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef offsetof
#define offsetof(t, d) __builtin_offsetof(t, d)
#endif

/* --------------------------------------------------------------------------------------------------------------------
 * ctx: the registers of the patched program at the patched instruction, as the kernel shows them to a uprobe. Each has
 * its name of user space and its name in the kernel. At a function's entry ip is the function, sp points at the return
 * address and orig_ax is -1.
 *
 * A SEC("upatch/...") program reads all of them and writes, by plain assignment, di si dx cx r8 r9 ax (at an entry) or
 * every general-purpose register but sp (at function+offset). A SEC("uprobe/...") program only reads.
 */
#define UPATCH_REGS								\
	unsigned long r15;							\
	unsigned long r14;							\
	unsigned long r13;							\
	unsigned long r12;							\
	union { unsigned long bp; unsigned long rbp; };				\
	union { unsigned long bx; unsigned long rbx; };				\
	unsigned long r11;							\
	unsigned long r10;							\
	unsigned long r9;							\
	unsigned long r8;							\
	union { unsigned long ax; unsigned long rax; };				\
	union { unsigned long cx; unsigned long rcx; };				\
	union { unsigned long dx; unsigned long rdx; };				\
	union { unsigned long si; unsigned long rsi; };				\
	union { unsigned long di; unsigned long rdi; };				\
	union { unsigned long orig_ax; unsigned long orig_rax; };		\
	union { unsigned long ip; unsigned long rip; };				\
	unsigned long cs;							\
	union { unsigned long flags; unsigned long eflags; };			\
	union { unsigned long sp; unsigned long rsp; };				\
	unsigned long ss;

/* Our macros look at ctx through this type, whoever defined struct pt_regs. */
struct upatch_regs { UPATCH_REGS } __attribute__((may_alias));

#if !defined(__VMLINUX_H__) && !defined(_ASM_X86_PTRACE_H)
struct pt_regs { UPATCH_REGS };
/* <asm/ptrace.h>, should it be included later, has nothing to add and must not define the same struct again. */
#define _ASM_X86_PTRACE_H
#endif

#define upatch_regs(ctx) ((struct upatch_regs *)(ctx))

/* Arguments are the full registers: the upper half of one that holds a 32-bit argument is garbage. UPATCH() knows. */
#ifndef PT_REGS_PARM1
#define PT_REGS_PARM1(ctx) (upatch_regs(ctx)->di)
#define PT_REGS_PARM2(ctx) (upatch_regs(ctx)->si)
#define PT_REGS_PARM3(ctx) (upatch_regs(ctx)->dx)
#define PT_REGS_PARM4(ctx) (upatch_regs(ctx)->cx)
#define PT_REGS_PARM5(ctx) (upatch_regs(ctx)->r8)
#define PT_REGS_RET(ctx) (upatch_regs(ctx)->sp) /* where the return address is */
#define PT_REGS_FP(ctx) (upatch_regs(ctx)->bp)
#define PT_REGS_RC(ctx) (upatch_regs(ctx)->ax) /* the result */
#define PT_REGS_SP(ctx) (upatch_regs(ctx)->sp)
#define PT_REGS_IP(ctx) (upatch_regs(ctx)->ip)
#endif
#ifndef PT_REGS_PARM6
#define PT_REGS_PARM6(ctx) (upatch_regs(ctx)->r9)
#endif

/* --------------------------------------------------------------------------------------------------------------------
 * What a SEC("upatch/...") program returns. Nothing else is accepted.
 */
enum upatch_verdict {
	UPATCH_CONTINUE = 0, /* the call goes on, with the registers as ctx has them */
	UPATCH_RETURN = 1,   /* the call ends here, its result is ctx's ax; only at a function's entry */
};

/*
 * `return upatch_return(ctx, -14);` ends the call with this result: an integer of up to 64 bits or a pointer. Without the
 * `return` it would end nothing, so that is an error.
 */
#define upatch_return(ctx, value) (upatch_regs(ctx)->ax = (unsigned long)(value), __upatch_must_be_returned())
/* For functions whose result takes rax and rdx: __int128, a struct of 9 to 16 bytes. */
#define upatch_return2(ctx, low, high)						\
	(upatch_regs(ctx)->ax = (unsigned long)(low), upatch_regs(ctx)->dx = (unsigned long)(high),	\
	 __upatch_must_be_returned())
/* `return UPATCH_RETURN_VOID(ctx);` for functions without a result. */
#define UPATCH_RETURN_VOID(ctx) upatch_return(ctx, 0)

#pragma clang diagnostic error "-Wunused-result"
static inline __attribute__((always_inline, unused, warn_unused_result)) enum upatch_verdict
__upatch_must_be_returned(void)
{
	return UPATCH_RETURN;
}

/* --------------------------------------------------------------------------------------------------------------------
 * Where a patch goes: SEC("upatch/MODULE:FUNCTION") or SEC("upatch/MODULE:FUNCTION+OFFSET"), where MODULE is a soname,
 * a file name, a path, or `exe` for the main program. A stripped program has no names for most of its functions: write the
 * address instead, as `objdump -d` and `nm` print it, with a name of yours, SEC("upatch/exe:realtime@0xa790"), or bare,
 * SEC("upatch/exe:0xa790"). It belongs to one build: see UPATCH_BUILD_ID.
 *
 * SEC("tcx/ingress"), SEC("tcx/egress") and SEC("tc") are programs for the kernel, in the same object: they use the same
 * arena variables and events, and are attached with the patch (`upatch apply --dev IFACE`). Their helpers, types and
 * functions are the kernel's (<linux/bpf.h>, <bpf/bpf_helpers.h>); ctx, verdicts and __ksym of this file are the patch's.
 */
#ifndef SEC
#define SEC(name) __attribute__((section(name), used))
#endif

/* The build-id, in hexadecimal, of a module that the patch was made for; repeatable. */
#define UPATCH_BUILD_ID(hex)							\
	static const char __upatch_join(__upatch_build_id_, __COUNTER__)[]	\
		__attribute__((section("upatch.build_id"), used, aligned(1))) = hex

/*
 * UPATCH(name, arguments...) defines a program whose parameters are those of the patched function, as far as it cares,
 * at most 6, integers, bool, enums and pointers. Each is cut to its C type. `ctx` is there too:
 *
 *	SEC("upatch/exe:set_expiry")
 *	int UPATCH(clamp, int key, long seconds)
 *	{
 *		if (seconds > 60)
 *			PT_REGS_PARM2(ctx) = 60;
 *		return UPATCH_CONTINUE;
 *	}
 *
 * The parameters are copies: `seconds = 60;` changes nothing for the function, the register does (or upatch_clamp_arg of
 * upatch_length.h, which keeps to the type). Floating-point parameters travel elsewhere and don't count: leave them out of the
 * list. What comes after the sixth lies on the stack, 8 bytes each: the seventh is read by
 * `bpf_probe_read_user(&seventh, sizeof(seventh), (void *)(ctx->sp + 8))`.
 * A pointer into the program can't be dereferenced: what it points to is copied first, by bpf_probe_read_user, for instance a
 * struct of yours with the same layout.
 */
#define UPATCH(name, args...)							\
	name(struct pt_regs *ctx);						\
	static inline __attribute__((always_inline)) __typeof__(name(0))	\
	____##name(struct pt_regs *ctx, ##args);				\
	__typeof__(name(0)) name(struct pt_regs *ctx)				\
	{									\
		_Pragma("clang diagnostic push")				\
		_Pragma("clang diagnostic ignored \"-Wint-conversion\"")	\
		return ____##name(ctx __upatch_args(args));			\
		_Pragma("clang diagnostic pop")					\
	}									\
	static inline __attribute__((always_inline)) __typeof__(name(0))	\
	____##name(struct pt_regs *ctx __attribute__((unused)), ##args)

/*
 * How it works: a pointer-sized value converts to any integer or pointer parameter by cutting it. To bool it would
 * convert by comparing all 64 bits with zero, so for a bool (psABI 3.2.3: the low 8 bits count) the rest goes first.
 */
#define __upatch_arg(reg, arg)							\
	(void *)(__builtin_types_compatible_p(void (*)(arg), void (*)(_Bool))	\
			 ? upatch_regs(ctx)->reg & 0xff				\
			 : upatch_regs(ctx)->reg)
#define __upatch_args0()
#define __upatch_args1(a) , __upatch_arg(di, a)
#define __upatch_args2(a, b) __upatch_args1(a), __upatch_arg(si, b)
#define __upatch_args3(a, b, c) __upatch_args2(a, b), __upatch_arg(dx, c)
#define __upatch_args4(a, b, c, d) __upatch_args3(a, b, c), __upatch_arg(cx, d)
#define __upatch_args5(a, b, c, d, e) __upatch_args4(a, b, c, d), __upatch_arg(r8, e)
#define __upatch_args6(a, b, c, d, e, f) __upatch_args5(a, b, c, d, e), __upatch_arg(r9, f)
#define __upatch_args7(...) , UPATCH_has_at_most_6_parameters_the_others_are_on_the_stack
#define __upatch_count(args...) __upatch_thirteenth(_, ##args, 7, 7, 7, 7, 7, 7, 6, 5, 4, 3, 2, 1, 0)
#define __upatch_thirteenth(_, a, b, c, d, e, f, g, h, i, j, k, l, n, ...) n
#define __upatch_args(args...) __upatch_join(__upatch_args, __upatch_count(args))(args)
#define __upatch_join(a, b) __upatch_join_now(a, b)
#define __upatch_join_now(a, b) a##b

/* --------------------------------------------------------------------------------------------------------------------
 * The arena: the memory that a patch shares with `upatch telemetry`, `upatch rules`, and kernel programs.
 *
 * `__arena` goes after the type: `struct limits __arena l;` (after a struct's body clang ignores it).
 * A rule is set from outside and read by the patch; a counter is counted by the patch and read from outside.
 *
 *	UPATCH_RULE(__u32, longest) = 60;
 *	UPATCH_COUNTER(__u64, hits[16]);
 */
#ifndef __arena
#define __arena __attribute__((address_space(1)))
#endif
#define UPATCH_RULE(type, name) type __arena name __attribute__((btf_decl_tag("upatch:rule")))
#define UPATCH_COUNTER(type, name) type __arena name __attribute__((btf_decl_tag("upatch:counter")))

/* Counting that loses nothing when threads meet; a plain `hits++` loses. Counters are of 4 or 8 bytes. */
#define UPATCH_ADD(counter, amount) ((void)__sync_fetch_and_add(&(counter), (amount)))
#define UPATCH_INC(counter) UPATCH_ADD(counter, 1)

/* --------------------------------------------------------------------------------------------------------------------
 * Helpers. The numbers and names are the kernel's; ours begin at 0x75700000. They are macros, so that libbpf's
 * variables of the same names may be declared before or after.
 */
#define __upatch_helper(id, result, args...) ((result (*)(args))(id))

/* Copies `size` bytes from the program's memory: 0, or -EFAULT (and zeros) if it isn't there. Never faults. */
#define bpf_probe_read_user(dst, size, src) __upatch_helper(112, long, void *, __u32, const void *)(dst, size, src)
/* Copies a string, at most `size` bytes with its NUL: the length with the NUL, or a negative errno. */
#define bpf_probe_read_user_str(dst, size, src)					\
	__upatch_helper(114, long, void *, __u32, const void *)(dst, size, src)
/* Writes the program's memory: needs `upatch apply --allow-write`. */
#define bpf_probe_write_user(dst, src, size) __upatch_helper(36, long, void *, const void *, __u32)(dst, src, size)
/* Compares s1, `size` bytes or up to its NUL, with the constant string s2: like strncmp(3). */
#define bpf_strncmp(s1, size, s2) __upatch_helper(182, long, const char *, __u32, const char *)(s1, size, s2)
/* Nanoseconds of CLOCK_MONOTONIC. */
#define bpf_ktime_get_ns() __upatch_helper(5, __u64, void)()
#define bpf_get_prandom_u32() __upatch_helper(7, __u32, void)()
#define bpf_get_smp_processor_id() __upatch_helper(8, __u32, void)()
/* tgid << 32 | pid, and gid << 32 | uid. */
#define bpf_get_current_pid_tgid() __upatch_helper(14, __u64, void)()
#define bpf_get_current_uid_gid() __upatch_helper(15, __u64, void)()
/* The thread's name, at most `size` bytes with its NUL. */
#define bpf_get_current_comm(buf, size) __upatch_helper(16, long, void *, __u32)(buf, size)
/* Sets errno of the calling thread in the program's libc. */
#define upatch_set_errno(value) __upatch_helper(0x75700001, long, int)(value)

/* --------------------------------------------------------------------------------------------------------------------
 * Events: what happened, when and in which thread, typed, for `upatch telemetry follow` and `upatch telemetry dump`.
 *
 *	struct refusal { char user[16]; __u32 length; } e = {};
 *	...
 *	upatch_event(&e, sizeof(e));
 *
 * They go to a ring in the arena that comes with the first use: many threads, forked children and kernel programs write
 * it at once, and nobody waits. The newest event takes the place of the oldest, so that a dump shows what happened last;
 * what a reader doesn't see is counted, event by event. A thread that dies while it writes loses its own event.
 *
 * An event is a struct, union, enum or number of at most UPATCH_EVENT_BYTES bytes, in the patch's own memory. Begin it
 * with `= {}`: padding is copied too and must hold something. Time and thread cost three system calls;
 * upatch_event_plain() leaves them out, for hot places and for programs that run under seccomp. Both give 1, or 0 if the
 * event was lost at once.
 *
 * upatch_printk("%d of %u", done, all) records a line of text: a constant format of at most 63 bytes and up to three
 * numbers (%d %i %u %x %X %o %c %p, with l for those of 64 bits, %% for the sign). Anything else is an error, %s too: put text
 * into an event of yours. It is bpf_printk() too, unless that is another header's.
 *
 * Before this header, `#define UPATCH_EVENT_SLOTS 4096` (a power of two) or `#define UPATCH_EVENT_BYTES 248` (a multiple
 * of 8) make the ring larger: it has SLOTS * (BYTES + 40) bytes.
 */
#ifndef UPATCH_EVENT_SLOTS
#define UPATCH_EVENT_SLOTS 512
#endif
#ifndef UPATCH_EVENT_BYTES
#define UPATCH_EVENT_BYTES 88
#endif
_Static_assert(UPATCH_EVENT_SLOTS > 0 && (UPATCH_EVENT_SLOTS & (UPATCH_EVENT_SLOTS - 1)) == 0,
	       "UPATCH_EVENT_SLOTS must be a power of two");
_Static_assert(UPATCH_EVENT_BYTES > 0 && UPATCH_EVENT_BYTES % 8 == 0, "UPATCH_EVENT_BYTES must be a multiple of 8");
_Static_assert((UPATCH_EVENT_BYTES + 40ULL) * UPATCH_EVENT_SLOTS <= 64 << 20, "the event ring would be larger than 64 MiB");

#define upatch_event(ptr, size) __upatch_event_of(ptr, size, bpf_ktime_get_ns(), bpf_get_current_pid_tgid())
#define upatch_event_plain(ptr, size) __upatch_event_of(ptr, size, 0, 0)

/*
 * How it works. Event number n goes to slot n % SLOTS, whose state says 2n + 1 while it is being written and 2n + 2 once it is
 * there. A slot that an earlier event left unfinished is taken over; whoever comes back to it then fails to publish. What
 * it still scribbles into the slot shows in the check word, which depends on n and everything written.
 */
struct upatch_event_slot {
	__u64 state;
	__u64 check;
	__u64 time;   /* bpf_ktime_get_ns(), or 0 */
	__u64 thread; /* bpf_get_current_pid_tgid(), or 0 */
	__u32 type;   /* number of the type in the object's BTF */
	__u32 size;
	__u64 words[UPATCH_EVENT_BYTES / 8];
};

struct upatch_event_ring {
	__u64 next; /* number of the next event */
	__u64 reserved[7];
	struct upatch_event_slot slots[UPATCH_EVENT_SLOTS];
};

static struct upatch_event_ring __arena upatch_events
	__attribute__((btf_decl_tag("upatch:events"), aligned(64), unused));

#define __upatch_event_of(ptr, bytes, at, who)					\
	({									\
		union {								\
			__typeof__(*(ptr)) value;				\
			__u64 words[((bytes) + 7) / 8];				\
		} upatch_e;							\
		_Static_assert((bytes) <= UPATCH_EVENT_BYTES,			\
			       "the event is larger than UPATCH_EVENT_BYTES");	\
		upatch_e.words[((bytes) - 1) / 8] = 0;				\
		__builtin_memcpy(&upatch_e, (ptr), (bytes));			\
		__upatch_event(upatch_e.words, (bytes),				\
			       __builtin_btf_type_id(*(ptr), 0), (at), (who));	\
	})

struct upatch_printk {
	__u64 args[3];
	char format[64];
};

#define upatch_printk(text, args...)						\
	({									\
		_Static_assert(sizeof(text) <= 64, "the format is longer than 63 bytes"); \
		enum { upatch_format = __upatch_format(text) };			\
		_Static_assert(upatch_format != 3,				\
			       "upatch_printk takes numbers only, by %d %i %u %x %X %o %c %p (with l: 64 bits) and %% for the sign; " \
			       "text goes into an event of yours, by bpf_probe_read_user_str"); \
		struct upatch_printk upatch_p = { { __upatch_numbers(args) }, text }; \
		upatch_event(&upatch_p, sizeof(upatch_p));			\
	})
#ifndef bpf_printk
#define bpf_printk upatch_printk
#endif
#define __upatch_numbers0() 0
#define __upatch_numbers1(a) (__u64)(a)
#define __upatch_numbers2(a, b) (__u64)(a), (__u64)(b)
#define __upatch_numbers3(a, b, c) (__u64)(a), (__u64)(b), (__u64)(c)
#define __upatch_numbers(args...) __upatch_join(__upatch_numbers, __upatch_count(args))(args)

/*
 * The format is read by the compiler, letter by letter: 0 outside of conversions, 1 behind a `%`, 2 behind its flags, width and
 * length, 3 once something was wrong. Letters are 1 `%`, 2 part of a conversion, 3 its end, 0 any other, as is the NUL, behind which
 * reading begins anew.
 */
#define __upatch_letter(c)							\
	(((c) == '%') | 2 * !!__builtin_memchr("0123456789#-+ lhjzt.", (c), 20) | 3 * !!__builtin_memchr("diuxXocp", (c), 8))
#define __upatch_read1(state, text, i)						\
	("\0\1\0\0\3\0\2\0\3\3\2\0\3\3\3\3"[(state) * 4 + __upatch_letter(text[(i) % sizeof(text)])])
#define __upatch_read4(state, text, i)						\
	__upatch_read1(__upatch_read1(__upatch_read1(__upatch_read1(state, text, i), text, i + 1), text, i + 2), text, i + 3)
#define __upatch_read16(state, text, i)						\
	__upatch_read4(__upatch_read4(__upatch_read4(__upatch_read4(state, text, i), text, i + 4), text, i + 8), text, i + 12)
#define __upatch_format(text)							\
	__upatch_read16(__upatch_read16(__upatch_read16(__upatch_read16(0, text, 0), text, 16), text, 32), text, 48)

#define __upatch_mix(h, word) (((h) ^ (word)) * 0x9e3779b97f4a7c15ULL)

static inline __attribute__((always_inline)) int
__upatch_event(const __u64 *words, __u32 size, __u32 type, __u64 time, __u64 thread)
{
	__u64 number = __sync_fetch_and_add(&upatch_events.next, 1), writing = 2 * number + 1;
	volatile struct upatch_event_slot __arena *slot = &upatch_events.slots[number % UPATCH_EVENT_SLOTS];
	__u64 before = slot->state, found, check = writing;

	if (before >= writing)
		return 0;
	found = __sync_val_compare_and_swap(&slot->state, before, writing);
	if (found != before) {
		/* Its last event was published this moment, or a later one has it. */
		if (found >= writing || __sync_val_compare_and_swap(&slot->state, found, writing) != found)
			return 0;
	}
	slot->time = time;
	check = __upatch_mix(check, time);
	slot->thread = thread;
	check = __upatch_mix(check ^ check >> 32, thread);
	slot->type = type;
	slot->size = size;
	check = __upatch_mix(check ^ check >> 32, (__u64)size << 32 | type);
	_Pragma("unroll")
	for (__u32 i = 0; i < (size + 7) / 8; i++) {
		slot->words[i] = words[i];
		check = __upatch_mix(check ^ check >> 32, words[i]);
	}
	slot->check = check;
	return __sync_val_compare_and_swap(&slot->state, writing, writing + 1) == writing;
}

/* --------------------------------------------------------------------------------------------------------------------
 * Loops. The verifier follows bounded `for` loops by itself. Others: bpf_loop calls `static long body(__u32 index, void
 * *data)` up to 1 << 23 times until it returns 1; can_loop and cond_break end a loop when the program's budget is used up:
 *
 *	for (p = first; p && can_loop; p = next(p))        while (more()) { cond_break; ... }
 */
#define bpf_loop(count, body, data, flags) __upatch_helper(181, long, __u32, void *, void *, __u64)(count, body, data, flags)

#ifndef can_loop
#define can_loop								\
	({									\
		__label__ upatch_over, upatch_on;				\
		_Bool upatch_go = 1;						\
		asm volatile goto("may_goto %l[upatch_over]" :::: upatch_over);	\
		goto upatch_on;							\
	upatch_over:								\
		upatch_go = 0;							\
	upatch_on:;								\
		upatch_go;							\
	})
#endif
#ifndef cond_break
#define cond_break								\
	({									\
		__label__ upatch_over, upatch_on;				\
		asm volatile goto("may_goto %l[upatch_over]" :::: upatch_over);	\
		goto upatch_on;							\
	upatch_over:								\
		break;								\
	upatch_on:;								\
	})
#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif

/* --------------------------------------------------------------------------------------------------------------------
 * Functions of the program itself can be called: declare them, say what their pointers are, and apply finds them.
 *
 *	extern void addReplyError(void *client, const char *message __str) __ksym;
 *	extern long write_log(int level, const void *bytes, size_t count __sz) __ksym;
 *
 * A pointer without annotation is an address of the program, one that came from ctx or was read: it is passed on.
 *	__str       a NUL-terminated string constant of the patch
 *	__sz        the size in bytes of the memory that the parameter just before points to: memory of the patch
 *	__nullable  NULL may be passed
 * The others have their meaning in the kernel's documentation of kfuncs and are refused for now.
 * (They are words, not name suffixes as in the kernel, because clang keeps no parameter names of extern functions.)
 */
#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif
#define __upatch_tag(tag) __attribute__((btf_decl_tag("upatch:" tag)))
/* of a parameter */
#define __str __upatch_tag("str")
#define __sz __upatch_tag("sz")
#ifndef __nullable
#define __nullable __upatch_tag("nullable")
#endif
#define __szk __upatch_tag("szk")
#define __k __upatch_tag("k")
#define __uninit __upatch_tag("uninit")
#define __opt __upatch_tag("opt")
#define __ign __upatch_tag("ign")
/* of the function */
#define __acquire __upatch_tag("acquire")
#define __release __upatch_tag("release")
#define __ret_null __upatch_tag("ret_null")

#endif /* UPATCH_H */
