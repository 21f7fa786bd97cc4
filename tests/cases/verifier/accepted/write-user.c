/* Writes the program's memory, where that is allowed.
 *
 * policy: allow-write
 */
#include "upatch.h"

SEC("upatch/exe:send")
int UPATCH(blank, char *text, size_t len)
{
	char stars[16] = "***************";

	if (len == 0)
		return UPATCH_CONTINUE;
	if (len > sizeof(stars))
		len = sizeof(stars);
	bpf_probe_write_user(text, stars, len);
	return UPATCH_CONTINUE;
}
