/*
 * What one call costs: identical functions, each alone in its page at the same offset, one per case. The hand-written
 * hooks are in this file; the places called *_ours are patched from outside by upatch, the one called *_uprobe by the
 * kernel. Told `round`, it times every case in turn (so that drift hits all of them alike) and prints one line.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CALLS 200000

/* long f(long a, long b, long c): (a + b + c) | 1. Five bytes of whole instructions are lea + add = 7. */
#define FUNCTION(name) FUNCTION_AT(name, "")
/* `first` is an instruction in front: a uprobe is cheapest on a nop of five bytes, next on one of one byte. */
#define FUNCTION_AT(name, first)                                                                                       \
	__asm__(".pushsection .text\n.p2align 12\n.skip 64\n.globl " #name "\n.type " #name ",@function\n" #name ":\n" first "\n" \
		"leaq (%rdi,%rsi), %rax\n addq %rdx, %rax\n orq $1, %rax\n ret\n.size " #name ", .-" #name "\n.popsection");   \
	long name(long, long, long);

#define CASES(X)                                                                                                       \
	X(unhooked) X(count_hand) X(count_ours) X(count_atomic_hand) X(count_atomic_ours) X(clamp_hand) X(clamp_ours)      \
	X(refuse_hand) X(refuse_ours)

#define DECLARE(name) FUNCTION(bench_##name)
CASES(DECLARE)
FUNCTION_AT(bench_uprobe_nop5, ".byte 0x0f, 0x1f, 0x44, 0, 0")
FUNCTION_AT(bench_uprobe_int3, "nop")

uint64_t hand_count, hand_atomic, hand_clamped, hand_refused;

/* The hooks as somebody who knows the function would write them: only rax is used, which the function overwrites. */
__asm__(".text\n.p2align 6\nhook_count:\n incq hand_count(%rip)\n leaq (%rdi,%rsi), %rax\n addq %rdx, %rax\n jmp bench_count_hand+7\n"
	".p2align 6\nhook_count_atomic:\n lock incq hand_atomic(%rip)\n leaq (%rdi,%rsi), %rax\n addq %rdx, %rax\n jmp bench_count_atomic_hand+7\n"
	".p2align 6\nhook_clamp:\n cmpq $100, %rsi\n jbe 1f\n incq hand_clamped(%rip)\n movl $100, %esi\n1: leaq (%rdi,%rsi), %rax\n addq %rdx, %rax\n jmp bench_clamp_hand+7\n"
	".p2align 6\nhook_refuse:\n cmpq $100, %rsi\n ja 1f\n leaq (%rdi,%rsi), %rax\n addq %rdx, %rax\n jmp bench_refuse_hand+7\n"
	"1: incq hand_refused(%rip)\n movq $-14, %rax\n ret\n");
extern char hook_count[], hook_count_atomic[], hook_clamp[], hook_refuse[];

static void hook(void *function, void *to)
{
	uint8_t jump[5] = { 0xe9 };
	int32_t distance = (int32_t)((char *)to - ((char *)function + 5));
	char *page = (char *)((uintptr_t)function & ~4095ul);
	memcpy(jump + 1, &distance, 4);
	if (mprotect(page, 4096, PROT_READ | PROT_WRITE))
		exit(1);
	memcpy(function, jump, 5);
	if (mprotect(page, 4096, PROT_READ | PROT_EXEC))
		exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* The loop is the same for all cases: calls through a register, arguments reloaded each time. */
static double time_calls(long (*function)(long, long, long), long b, int calls)
{
	double start = now();
	for (int i = 0; i < calls; i++) {
		long a = 1, c = 3, d = b;
		void *f = (void *)function;
		__asm__ volatile("call *%3" : "+D"(a), "+S"(d), "+d"(c) : "r"(f) : "rax", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
	}
	return (now() - start) / calls;
}

struct row {
	const char *name;
	long (*function)(long, long, long);
};
#define ROW(name) { #name, bench_##name },
static const struct row rows[] = { CASES(ROW) ROW(uprobe_nop5) ROW(uprobe_int3) };

int main(void)
{
	char line[64];
	hook(bench_count_hand, hook_count);
	hook(bench_count_atomic_hand, hook_count_atomic);
	hook(bench_clamp_hand, hook_clamp);
	hook(bench_refuse_hand, hook_refuse);
	setvbuf(stdout, 0, _IOLBF, 0);
	printf("ready %d\n", getpid());
	while (fgets(line, sizeof line, stdin)) {
		if (!strncmp(line, "results", 7)) {
			/* What each case answers for a legal and an excessive argument: the bench checks that hooks do the same. */
			for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
				printf("%s %ld %ld%s", rows[i].name, rows[i].function(1, 5, 3), rows[i].function(1, 5000, 3),
				       i + 1 < sizeof rows / sizeof *rows ? " " : "\n");
			continue;
		}
		if (strncmp(line, "round", 5))
			break;
		for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
			/* refuse is timed refusing, clamp clamping */
			long b = strncmp(rows[i].name, "clamp", 5) && strncmp(rows[i].name, "refuse", 6) ? 5 : 5000;
			int calls = strncmp(rows[i].name, "uprobe", 6) ? CALLS : CALLS / 50;
			time_calls(rows[i].function, b, calls / 20);
			printf("%s %.4f%s", rows[i].name, time_calls(rows[i].function, b, calls),
			       i + 1 < sizeof rows / sizeof *rows ? " " : "\n");
		}
	}
	return 0;
}
