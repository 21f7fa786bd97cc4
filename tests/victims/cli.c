/* A victim for the command line's tests: answers each line on standard input with one line; after an `f` a forked child
 * answers. `cli seccomp` installs a filter first that allows everything. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int base = 7;

__attribute__((noinline)) int work(int x)
{
	int sum = base;

	for (int i = 0; i < x % 10; i++)
		sum += i * base;
	return sum + x * 2;
}

static void filter(void)
{
	struct sock_filter allow[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
	struct sock_fprog program = {1, allow};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(1);
}

int main(int count, char **words)
{
	char line[64];

	(void)words;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count > 1)
		filter();
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		pid_t child;

		if (line[0] != 'f') {
			printf("%d\n", work(atoi(line)));
			continue;
		}
		child = fork();
		if (child < 0)
			return 1;
		if (child == 0) {
			dprintf(1, "%d\n", work(atoi(line + 1)));
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
