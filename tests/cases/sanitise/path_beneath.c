#include "case.h"

/* Bit 0: beneath /srv/www, bit 1: beneath /, bit 2: beneath srv. */
SEC("upatch/exe:f")
int UPATCH(path_beneath, const char *address)
{
	char path[64];
	long length = upatch_read_str(path, sizeof(path), address);
	long beneath = 0;

	length = upatch_path_normalize(path, sizeof(path), length, UPATCH_DOTDOT_RESOLVE);
	if (length < 0)
		return upatch_return(ctx, length);
	if (upatch_path_is_beneath(path, "/srv/www"))
		beneath |= 1;
	if (upatch_path_is_beneath(path, "/"))
		beneath |= 2;
	if (upatch_path_is_beneath(path, "srv"))
		beneath |= 4;
	return upatch_return(ctx, beneath);
}
