#include "case.h"

static const upatch_charset vowels = { ['a'] = 1, ['e'] = 1, ['i'] = 1, ['o'] = 1, ['u'] = 1 };

/* A bit for each that accepts it: printable, word, portable, shell, identifier, plain name, vowels. */
SEC("upatch/exe:f")
int UPATCH(charsets, const char *address)
{
	char text[32];
	long got = upatch_read_str(text, sizeof(text), address), accepted = 0;

	if (got < 0)
		return upatch_return(ctx, got);
	if (!upatch_only(text, sizeof(text), upatch_printable))
		accepted |= 1;
	if (!upatch_only(text, sizeof(text), upatch_word))
		accepted |= 2;
	if (!upatch_only(text, sizeof(text), upatch_portable))
		accepted |= 4;
	if (!upatch_only(text, sizeof(text), upatch_shell_safe))
		accepted |= 8;
	if (!upatch_identifier(text, sizeof(text)))
		accepted |= 16;
	if (!upatch_plain_name(text, sizeof(text)))
		accepted |= 32;
	if (!upatch_only(text, sizeof(text), vowels))
		accepted |= 64;
	upatch_lower(text, sizeof(text));
	show(text, sizeof(text));
	return upatch_return(ctx, accepted);
}
