/* A victim for the command line's tests: answers each line on standard input with one line; after an `f` a forked child
 * answers, after an `m` a page is mapped at that address. `cli seccomp` installs a filter first that allows everything. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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

/* Jumps back to its second instruction: no room for a jump at its entry. */
__asm__(".globl tight\n.type tight, @function\ntight:\n\txorl %eax, %eax\n1:\tincl %eax\n\tdecl %edi\n\tjnz 1b\n\tret\n.size tight, .-tight\n");
int tight(int x);

static void *occupy(const char *address)
{
	return mmap((void *)strtoul(address, NULL, 16), 4096, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
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

		if (line[0] == 'm') {
			printf("%d\n", occupy(line + 1) == MAP_FAILED ? -1 : tight(1));
			continue;
		}
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
