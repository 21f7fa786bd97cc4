/* A victim with places to patch at once: `first` in the program, `second` in a library beside it, getppid in libc. Threads call
 * them in turn and count how often the answers change from patched to not, or back.
 * Lines on standard input: `p` asks for one answer of each, `f` the same from a forked child, `c` forks a child that
 * stays (its pid is the answer), `kPID` ends it, `s` for `changes calls` of all threads. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 2, PATCHED = 4242 };

int second(int x);

static volatile int base = 7;
static atomic_ulong changes, calls;

__attribute__((noinline)) int first(int x)
{
	int sum = base;

	for (int i = 0; i < x % 10; i++)
		sum += i * base;
	return sum + x * 2;
}

static void *caller(void *unused)
{
	int before = -1;

	(void)unused;
	for (unsigned turn = 0;; turn++) {
		int now = (turn & 1 ? first(3) : second(3)) == PATCHED;

		if (before >= 0 && now != before)
			atomic_fetch_add(&changes, 1);
		before = now;
		atomic_fetch_add(&calls, 1);
	}
	return NULL;
}

static void answers(void)
{
	dprintf(1, "%d %d %d\n", first(3) == PATCHED, second(3) == PATCHED, getppid() == PATCHED);
}

int main(int count, char **words)
{
	char line[64];
	pthread_t threads[THREADS];

	(void)words;
	for (int i = 0; count < 2 && i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, caller, NULL))
			return 1;
	dprintf(1, "ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		pid_t child;

		switch (line[0]) {
		case 'p':
			answers();
			break;
		case 's':
			dprintf(1, "%lu %lu\n", atomic_load(&changes), atomic_load(&calls));
			break;
		case 'f':
			child = fork();
			if (child < 0)
				return 1;
			if (child == 0) {
				answers();
				_exit(0);
			}
			waitpid(child, NULL, 0);
			break;
		case 'c':
			/* A worker, which ends with us. */
			child = fork();
			if (child < 0)
				return 1;
			if (child == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				for (;;) {
					first(3);
					second(3);
					usleep(1000);
				}
			}
			dprintf(1, "%d\n", child);
			break;
		case 'k':
			kill(atoi(line + 1), 9);
			waitpid(atoi(line + 1), NULL, 0);
			dprintf(1, "killed\n");
			break;
		}
	}
	return 0;
}
