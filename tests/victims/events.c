/* A victim whose patched function is called by many threads and processes at once. It answers each line on standard input
 * with one line:
 *   THREADS CALLS   that many threads call work() that often each
 *   k ROUNDS        a forked child calls work() 1000 times and is killed so many rounds of a loop after its first call:
 *                   how often it had called
 *   x CALLS         calls work() that often and ends at once, without an answer */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static long calls;

__attribute__((noinline)) long work(long thread, long number)
{
	__asm__ volatile("" : "+r"(thread), "+r"(number));
	return (thread << 32) ^ number;
}

static void *loop(void *thread)
{
	for (long i = 0; i < calls; i++)
		if (work((long)thread, i) != (((long)thread << 32) ^ i))
			abort();
	return NULL;
}

static long killed(long rounds, volatile long *called)
{
	pid_t child;

	*called = 0;
	child = fork();
	if (child < 0)
		exit(1);
	if (child == 0)
		for (;;)
			if (*called < 1000) {
				work(-1, *called);
				*called += 1;
			}
	while (*called == 0)
		;
	for (volatile long i = 0; i < rounds; i++)
		;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return *called;
}

int main(void)
{
	char line[64];
	volatile long *called = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		pthread_t threads[64];
		long count = atol(line);

		if (line[0] == 'k') {
			printf("%ld\n", killed(atol(line + 1), called));
			continue;
		}
		if (line[0] == 'x') {
			calls = atol(line + 1);
			loop(NULL);
			_exit(0);
		}
		calls = atol(strchr(line, ' '));
		for (long i = 0; i < count; i++)
			if (pthread_create(&threads[i], NULL, loop, (void *)i))
				return 1;
		for (long i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
		puts("done");
	}
	return 0;
}
