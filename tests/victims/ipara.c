/* Callers that keep values in registers which the ABI lets a callee overwrite. Usage: ipara STATISTICS-FILE.
 * gcc -O2 -fipa-ra sees that `touched` leaves most scratch registers alone; `fill` does the same by hand for all of them
 * and for every vector and mask register that the processor has. Counters: 0 calls, 1 errors, 2 vector bytes checked. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile uint64_t *stats;

__attribute__((noinline)) uint64_t touched(uint64_t a)
{
	__asm__ volatile("" : "+r"(a));
	return a * 5 + 1;
}

/* The compiler's own choice: a, b, c, d, e stay in scratch registers across the call. */
__attribute__((noinline)) static uint64_t caller(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	uint64_t r = touched(a);
	return r + b * 3 + c * 7 + d * 11 + e * 13;
}

#define BYTES (32 * 64 + 8 * 8)
static unsigned char before[BYTES] __attribute__((aligned(64)));
static unsigned char after[BYTES] __attribute__((aligned(64)));
static uint64_t general[9], general_after[9];

#define ZL(n) "vmovdqu64 " #n "*64(%%rdi),%%zmm" #n "\n"
#define ZS(n) "vmovdqu64 %%zmm" #n "," #n "*64(%%rdi)\n"
#define KL(n) "kmovq 2048+" #n "*8(%%rdi),%%k" #n "\n"
#define KS(n) "kmovq %%k" #n ",2048+" #n "*8(%%rdi)\n"
#define YL(n) "vmovdqu " #n "*64(%%rdi),%%ymm" #n "\n"
#define YS(n) "vmovdqu %%ymm" #n "," #n "*64(%%rdi)\n"
#define ALL16(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define ALL32(f) ALL16(f) f(16) f(17) f(18) f(19) f(20) f(21) f(22) f(23) f(24) f(25) f(26) f(27) f(28) f(29) f(30) f(31)
#define ALL8(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7)

/* rcx rdx rsi r8 r9 r10 r11 rbx rbp hold values across the call; `touched` writes rax and rdi only. */
#define CALL \
	"push %%rbp\n" \
	"mov 8(%[g]),%%rcx\n mov 16(%[g]),%%rdx\n mov 24(%[g]),%%rsi\n mov 32(%[g]),%%r8\n mov 40(%[g]),%%r9\n" \
	"mov 48(%[g]),%%r10\n mov 56(%[g]),%%r11\n mov 64(%[g]),%%rbp\n mov $7,%%edi\n" \
	"call touched\n" \
	"mov %%rcx,8(%[h])\n mov %%rdx,16(%[h])\n mov %%rsi,24(%[h])\n mov %%r8,32(%[h])\n mov %%r9,40(%[h])\n" \
	"mov %%r10,48(%[h])\n mov %%r11,56(%[h])\n mov %%rbp,64(%[h])\n mov %%rax,0(%[h])\n" \
	"pop %%rbp\n"

static size_t fill_and_call(void)
{
	size_t len;
	unsigned char *b = before, *a = after;
	if (__builtin_cpu_supports("avx512bw")) {
		len = BYTES;
		__asm__ volatile("sub $128,%%rsp\n mov %[b],%%rdi\n" ALL32(ZL) ALL8(KL) CALL "mov %[a],%%rdi\n" ALL32(ZS) ALL8(KS) "add $128,%%rsp\n"
			:: [b] "r"(b), [a] "r"(a), [g] "r"(general), [h] "r"(general_after)
			: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
	} else {
		len = 16 * 64;
		for (int i = 0; i < 16; i++)
			memset(before + i * 64 + 32, 0, 32);
		__asm__ volatile("sub $128,%%rsp\n mov %[b],%%rdi\n" ALL16(YL) CALL "mov %[a],%%rdi\n" ALL16(YS) "add $128,%%rsp\n"
			:: [b] "r"(b), [a] "r"(a), [g] "r"(general), [h] "r"(general_after)
			: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
	}
	return len;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	int fd = open(argv[1], O_RDWR);
	stats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (stats == MAP_FAILED)
		return 2;
	puts("ready");
	fflush(stdout);
	for (uint64_t i = 0;; i++) {
		for (size_t k = 0; k < BYTES; k++)
			before[k] = (unsigned char)(i * 31 + k * 7 + 1);
		for (int k = 0; k < 9; k++)
			general[k] = i * 0x9e3779b97f4a7c15u + k;
		memset(after, 0, sizeof after);
		size_t len = fill_and_call();
		int ok = memcmp(before, after, len) == 0 && general_after[0] == 36
			&& memcmp(general + 1, general_after + 1, 64) == 0;
		ok &= caller(i, i + 1, i + 2, i + 3, i + 4)
			== i * 5 + 1 + (i + 1) * 3 + (i + 2) * 7 + (i + 3) * 11 + (i + 4) * 13;
		stats[2] = len;
		stats[0]++;
		if (!ok) {
			stats[1]++;
			fprintf(stderr, "ipara: a register changed\n");
			_exit(3);
		}
	}
}
