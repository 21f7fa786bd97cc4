/* A victim with places to patch at once: `first` in the program, `second` in a library beside it, getppid in libc. Threads call
 * them in turn and count how often the answers change from patched to not, or back.
 * Lines on standard input: `p` asks for one answer of each, `f` the same from a forked child, `c` forks a child that
 * stays (its pid is the answer), `kPID` ends it, `s` for `changes calls` of all threads, `oPATH` loads a library, `u` unloads it,
 * `b` begins to fork workers that live for a tenth of a second each, `e` ends that and tells `workers harmed`. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static atomic_int storming;
static unsigned long workers, harmed;

/* A worker's answers are the patched or the right ones. */
static void work(void)
{
	for (int i = 0; i < 100; i++) {
		int one = first(3), two = second(3);

		if ((one != PATCHED && one != 34) || (two != PATCHED && two != 53))
			_exit(1);
		usleep(1000);
	}
	_exit(0);
}

static void *storm(void *unused)
{
	int status, alive = 0;

	(void)unused;
	while (storming || alive) {
		if (storming && alive < 25) {
			pid_t child = fork();

			if (child == 0)
				work();
			workers += child > 0;
			alive += child > 0;
		}
		while (alive && waitpid(-1, &status, WNOHANG) > 0) {
			alive--;
			harmed += status != 0;
		}
		usleep(4000);
	}
	return NULL;
}

static void answers(void)
{
	dprintf(1, "%d %d %d\n", first(3) == PATCHED, second(3) == PATCHED, getppid() == PATCHED);
}

int main(int count, char **words)
{
	char line[512];
	void *library = NULL;
	pthread_t threads[THREADS], stormer;

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
		case 'o':
			line[strcspn(line, "\n")] = 0;
			library = dlopen(line + 1, RTLD_NOW);
			dprintf(1, library ? "open\n" : "failed\n");
			break;
		case 'u':
			dprintf(1, dlclose(library) ? "failed\n" : "closed\n");
			break;
		case 'b':
			storming = 1;
			if (pthread_create(&stormer, NULL, storm, NULL))
				return 1;
			dprintf(1, "begun\n");
			break;
		case 'e':
			storming = 0;
			pthread_join(stormer, NULL);
			dprintf(1, "%lu %lu\n", workers, harmed);
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
