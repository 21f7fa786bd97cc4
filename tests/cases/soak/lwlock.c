/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counts how often PostgreSQL takes one of its internal locks: a few hundred times a transaction, by every process. */
#include "upatch.h"

UPATCH_COUNTER(__u64, hits);

SEC("upatch/exe:LWLockAcquire")
int UPATCH(count, void *lock, int mode)
{
	UPATCH_INC(hits);
	return UPATCH_CONTINUE;
}
