/* vfork children that run the function while their parent sleeps in the kernel. Usage: vfork STATISTICS-FILE.
 * Counters: 0 calls of children, 1 errors, 2 children, 3 calls of the other thread. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t *stats;

__attribute__((noinline)) uint64_t work(uint64_t a, uint64_t b)
{
	uint64_t r = a * 3 + b;
	r ^= r >> 7;
	return r * 0x9e3779b97f4a7c15u + a;
}

static void check(uint64_t i)
{
	uint64_t r = i * 3 + 9;
	r ^= r >> 7;
	if (work(i, 9) != r * 0x9e3779b97f4a7c15u + i) {
		stats[1]++;
		_exit(3);
	}
}

static void *beside(void *unused)
{
	(void)unused;
	for (uint64_t i = 0;; i++) {
		check(i);
		stats[3]++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	int fd = open(argv[1], O_RDWR);
	stats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (stats == MAP_FAILED)
		return 2;
	pthread_t thread;
	if (pthread_create(&thread, NULL, beside, NULL))
		return 2;
	puts("ready");
	fflush(stdout);
	for (;;) {
		pid_t child = vfork();
		if (child == 0) {
			struct timespec begin, now;
			clock_gettime(CLOCK_MONOTONIC, &begin);
			do {
				for (uint64_t i = 0; i < 1000; i++)
					check(i);
				stats[0] += 1000;
				clock_gettime(CLOCK_MONOTONIC, &now);
			} while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 50000000);
			_exit(0);
		}
		int status;
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
			stats[1]++;
			return 3;
		}
		stats[2]++;
	}
}
