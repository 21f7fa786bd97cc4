/* Threads in all kinds of waits, each of which knows what its wait must return. Usage: waits STATISTICS-FILE.
 * Counters 0-6: rounds of user code, nanosleep, futex, read, poll, epoll_wait, sigtimedwait; 14: wait with the last
 * error; 15: errors. No signal handler is installed, so EINTR is an error everywhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t *stats;
static int pipes[3][2];

__attribute__((noinline)) uint64_t work(uint64_t a, uint64_t b)
{
	uint64_t r = a * 3 + b;
	r ^= r >> 7;
	return r * 0x9e3779b97f4a7c15u + a;
}

static void check(int wait, int ok, long result)
{
	uint64_t i = stats[wait], r = i * 3 + 9;
	r ^= r >> 7;
	if (!ok || work(i, 9) != r * 0x9e3779b97f4a7c15u + i) {
		fprintf(stderr, "waits: wait %d gave %ld, errno %d\n", wait, result, errno);
		stats[14] = wait;
		stats[15]++;
	}
	stats[wait]++;
}

static int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void *run(void *arg)
{
	long wait = (long)arg;
	struct timespec ms20 = { 0, 20000000 };
	unsigned word = 0;
	int ep = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	epoll_ctl(ep, EPOLL_CTL_ADD, pipes[2][0], &event);
	for (uint64_t n = 0;; n++) {
		int64_t begin = now_us();
		long r;
		char byte = 0;
		switch (wait) {
		case 0:
			for (int k = 0; k < 1000; k++)
				check(0, 1, 0);
			break;
		case 1:
			r = nanosleep(&ms20, NULL);
			check(1, r == 0 && now_us() - begin >= 20000, r);
			break;
		case 2:
			r = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ms20, NULL, 0);
			check(2, r == -1 && errno == ETIMEDOUT && now_us() - begin >= 20000, r);
			break;
		case 3:
			r = read(pipes[0][0], &byte, 1);
			check(3, r == 1 && byte == 'x', r);
			break;
		case 4: {
			struct pollfd p = { pipes[1][0], POLLIN, 0 };
			r = poll(&p, 1, n & 1 ? 20 : -1);
			if (r == 1)
				check(4, read(pipes[1][0], &byte, 1) == 1 && byte == 'y', r);
			else
				check(4, r == 0 && now_us() - begin >= 20000, r);
			break;
		}
		case 5:
			r = epoll_wait(ep, &event, 1, n & 1 ? 20 : -1);
			if (r == 1)
				check(5, read(pipes[2][0], &byte, 1) == 1 && byte == 'z', r);
			else
				check(5, r == 0 && now_us() - begin >= 20000, r);
			break;
		default:
			r = sigtimedwait(&usr1, NULL, &ms20);
			check(6, r == -1 && errno == EAGAIN && now_us() - begin >= 20000, r);
		}
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
	sigset_t all;
	sigemptyset(&all);
	sigaddset(&all, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	for (int i = 0; i < 3; i++)
		if (pipe(pipes[i]))
			return 2;
	pthread_t thread;
	for (long i = 0; i < 7; i++)
		if (pthread_create(&thread, NULL, run, (void *)i))
			return 2;
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct timespec ms15 = { 0, 15000000 };
		if (nanosleep(&ms15, NULL)) {
			stats[14] = 7;
			stats[15]++;
		}
		if (write(pipes[0][1], "x", 1) != 1 || write(pipes[1][1], "y", 1) != 1 || write(pipes[2][1], "z", 1) != 1)
			return 2;
	}
}
