/* A victim one of whose threads has a descriptor table of its own, in which other numbers are free than in the process's: there
 * they are sockets of the program's. Answers a number with work(number), `n` with the sockets that somebody has named. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKETS = 64 };

static volatile int base = 7;
static sem_t apart;

__attribute__((noinline)) int work(int x)
{
	int sum = base;

	for (int i = 0; i < x % 10; i++)
		sum += i * base;
	return sum + x * 2;
}

static void *thread(void *unused)
{
	(void)unused;
	if (unshare(CLONE_FILES))
		exit(1);
	sem_post(&apart);
	for (;;)
		pause();
	return NULL;
}

int main(void)
{
	char line[64];
	int sockets[SOCKETS];
	pthread_t other;

	sem_init(&apart, 0, 0);
	if (pthread_create(&other, NULL, thread, NULL))
		return 1;
	sem_wait(&apart);
	for (int i = 0; i < SOCKETS; i++)
		sockets[i] = socket(AF_UNIX, SOCK_DGRAM, 0);
	dprintf(1, "ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		int named = 0;

		for (int i = 0; i < SOCKETS; i++) {
			struct sockaddr_storage name;
			socklen_t len = sizeof(name);

			named += getsockname(sockets[i], (struct sockaddr *)&name, &len) || len > 2;
		}
		dprintf(1, "%d\n", line[0] == 'n' ? named : work(atoi(line)));
	}
	return 0;
}
