/* A program that does nothing but check its own results, on many threads, while others are born and die.
 * Usage: spinner STATISTICS-FILE THREADS. Counts go to the file, which the test maps; ends with status 3 at the first
 * wrong result. Each function begins in another way: short plain instructions, a call among the first five bytes,
 * recursion. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct statistics {
	_Atomic uint64_t checks[64];
	_Atomic uint64_t births;
	_Atomic uint64_t errors;
};
static struct statistics *stats;

__attribute__((noinline)) uint64_t work(uint64_t a, uint64_t b)
{
	uint64_t r = a * 3 + b;
	r ^= r >> 7;
	return r * 0x9e3779b97f4a7c15u + a;
}

/* Begins with a slow short instruction: a thread that is stopped stands behind it more often than anywhere else. */
uint64_t slow(uint64_t *counter, uint64_t a);
__asm__(".text\n.p2align 4\n.globl slow\n.type slow,@function\nslow:\n"
	"lock incq (%rdi)\n"
	"lea 3(%rsi),%rax\n"
	"ret\n.size slow,.-slow\n");

__attribute__((noinline)) uint64_t inner(uint64_t a)
{
	__asm__ volatile("" : "+r"(a));
	return a + 17;
}

__attribute__((noinline)) uint64_t wrap(uint64_t a)
{
	return inner(a) * 2 + 1;
}

__attribute__((noinline)) uint64_t deep(uint64_t n)
{
	if (n == 0)
		return 1;
	uint64_t below = deep(n - 1);
	__asm__ volatile("" : "+r"(below));
	return below + n;
}

static void check(int ok)
{
	if (__builtin_expect(!ok, 0)) {
		stats->errors++;
		fprintf(stderr, "spinner: wrong result\n");
		_exit(3);
	}
}

static uint64_t expected(uint64_t a, uint64_t b)
{
	uint64_t r = a * 3 + b;
	r ^= r >> 7;
	return r * 0x9e3779b97f4a7c15u + a;
}

static void round_of_checks(uint64_t i)
{
	uint64_t counter = i;
	for (int k = 0; k < 4; k++)
		check(slow(&counter, i) == i + 3);
	check(counter == i + 4);
	check(work(i, i + 5) == expected(i, i + 5));
	check(work(~i, 1) == expected(~i, 1));
	check(wrap(i) == (i + 17) * 2 + 1);
	check(deep(i & 15) == 1 + (i & 15) * ((i & 15) + 1) / 2);
}

static void *spin(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	for (uint64_t i = me;; i++) {
		round_of_checks(i);
		stats->checks[me]++;
	}
	return NULL;
}

static void *live_shortly(void *arg)
{
	for (uint64_t i = 0; i < 10; i++)
		round_of_checks((uintptr_t)arg + i);
	stats->births++;
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	int fd = open(argv[1], O_RDWR);
	stats = mmap(NULL, sizeof *stats, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (stats == MAP_FAILED)
		return 2;
	pthread_t thread;
	for (long i = 0; i < atol(argv[2]) && i < 64; i++)
		if (pthread_create(&thread, NULL, spin, (void *)i))
			return 2;
	puts("ready");
	fflush(stdout);
	for (uint64_t i = 0;; i++) {
		if (pthread_create(&thread, NULL, live_shortly, (void *)i))
			return 2;
		pthread_join(thread, NULL);
	}
}
