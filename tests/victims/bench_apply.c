/*
 * How long a stop lasts, seen from inside: one thread reads the clock without pause and keeps the longest gap, the
 * others (argv[1] - 1 of them) call the patched function now and then and sleep. `reset` forgets, `gap` prints the
 * longest gap in nanoseconds since, and how many calls gave a wrong result (must be 0).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_long longest, wrong, rounds;

__attribute__((noinline, used)) long bench_target(long a, long b)
{
	__asm__ volatile("" : "+r"(a), "+r"(b));
	return (a * 3 + b) | 1;
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void call(long i)
{
	if (bench_target(i, 5) != ((i * 3 + 5) | 1))
		atomic_fetch_add(&wrong, 1);
}

static void *watch(void *unused)
{
	long before = now();
	for (long i = 0;; i++) {
		long t = now();
		if (t - before > atomic_load_explicit(&longest, memory_order_relaxed))
			atomic_store(&longest, t - before);
		call(i);
		before = t;
		atomic_fetch_add_explicit(&rounds, 1, memory_order_release);
	}
	return unused;
}

static void *doze(void *unused)
{
	for (long i = 0;; i++) {
		struct timespec pause = { 0, 20000000 };
		call(i);
		nanosleep(&pause, 0);
	}
	return unused;
}

int main(int argc, char **argv)
{
	char line[64];
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	pthread_t thread;
	setvbuf(stdout, 0, _IOLBF, 0);
	/* The main thread only talks; it is one of the threads when there are several. */
	if (pthread_create(&thread, 0, watch, 0))
		return 1;
	for (int i = 2; i < threads; i++)
		if (pthread_create(&thread, 0, doze, 0))
			return 1;
	printf("ready %d\n", getpid());
	while (fgets(line, sizeof line, stdin)) {
		if (!strncmp(line, "reset", 5)) {
			atomic_store(&longest, 0);
			printf("ok\n");
		} else if (!strncmp(line, "gap", 3)) {
			/* A gap that lasts until now counts when the watching thread has come round again. */
			long seen = atomic_load(&rounds);
			while (atomic_load_explicit(&rounds, memory_order_acquire) < seen + 2)
				usleep(50);
			printf("%ld %ld\n", atomic_load(&longest), atomic_load(&wrong));
		} else {
			break;
		}
	}
	_exit(0);
}
