/* A plain increment is accepted with a warning.
 *
 * warning: `hits` is read, changed and written back
 */
#include "upatch.h"

UPATCH_COUNTER(__u64, hits);

SEC("upatch/exe:f")
int UPATCH(count)
{
	hits++;
	return UPATCH_CONTINUE;
}
