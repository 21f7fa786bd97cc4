/* Maps memory files that look like upatch's: one each of three names, or as many as it is told. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int map(const char *name)
{
	int file = memfd_create(name, 0);

	if (file < 0 || ftruncate(file, 4096))
		return -1;
	if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED)
		return -1;
	return close(file);
}

int main(int count, char **words)
{
	int many = count > 1 ? atoi(words[1]) : 0;

	if (map("upatch:\033[2J\033[8m") || map("upatch:\n0badc0d") || map("upatch:0badc0de"))
		return 1;
	for (int i = 0; i < many; i++)
		if (map("upatch:0badc0de"))
			return 1;
	dprintf(1, "ready\n");
	for (char line[64]; fgets(line, sizeof(line), stdin);)
		;
	return 0;
}
