#include "case.h"

UPATCH_STRING_LIST(names, 8, 16) = { "alice", "bob", "/srv/www", "0123456789abcdef", "/", "x" };

/* Bit 0: on the list, bit 1: begun by an entry, bit 2: beneath an entry; 8: the list is being edited. */
SEC("upatch/exe:f")
int UPATCH(list, const char *address)
{
	char text[32];
	long got = upatch_read_str(text, sizeof(text), address), has = 0, has_prefix, has_beneath;

	if (got < 0)
		return upatch_return(ctx, got);
	has = upatch_list_has(names, text, sizeof(text));
	has_prefix = upatch_list_has_prefix(names, text, sizeof(text));
	has_beneath = upatch_list_has_beneath(names, text, sizeof(text));
	if (has < 0 || has_prefix < 0 || has_beneath < 0)
		return upatch_return(ctx, 8);
	return upatch_return(ctx, has | has_prefix << 1 | has_beneath << 2);
}
