/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Finds Diffie-Hellman moduli unsuitable that would take seconds to check (CVE-2023-3446). See README.md. */
#include "upatch.h"

/* _openssl.abi3.so of PyPI's cryptography 38.0.1, manylinux_2_28, x86-64: OpenSSL 3.0.5 */
UPATCH_BUILD_ID("4f876922d31672969f3ec26221ec19499a6c0569");

/* struct dh_st of this build: BIGNUM *p at 8; in a BIGNUM the number of its 64-bit words is an int at 8. */
#define DH_P 8
#define BIGNUM_TOP 8
#define WORD_BITS 64

/* <openssl/dh.h> */
#define DH_MODULUS_TOO_LARGE 0x100

UPATCH_RULE(__u32, longest_bits) = 10000;
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

/* int DH_check(const DH *dh, int *ret): 1 when the check could be done; what is wrong with dh is then in *ret */
SEC("upatch/_openssl.abi3.so:DH_check")
int UPATCH(refuse_long_moduli, __u64 dh, int *ret)
{
	int words, wrong = DH_MODULUS_TOO_LARGE;
	__u64 p;

	UPATCH_INC(hits);
	if (bpf_probe_read_user(&p, sizeof(p), (const void *)(dh + DH_P)) ||
	    bpf_probe_read_user(&words, sizeof(words), (const void *)(p + BIGNUM_TOP)))
		return UPATCH_CONTINUE;
	/* The top word has at least one bit. */
	if (words < 1 || (__u64)(words - 1) * WORD_BITS < longest_bits)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	/* Should the answer not be writable, the check has failed. */
	return upatch_return(ctx, !bpf_probe_write_user(ret, &wrong, sizeof(wrong)));
}
