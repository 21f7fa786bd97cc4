/* Functions of the application. */
#include "upatch.h"

extern void add_reply_error(void *client, const char *message __str) __ksym;
extern long write_log(int level, const void *bytes, size_t count __sz) __ksym;
extern int is_allowed(const void *who __nullable, unsigned int what) __ksym;

SEC("upatch/exe:command")
int UPATCH(guard, void *client, unsigned int what)
{
	char line[32] = "refused";

	if (is_allowed(client, what))
		return UPATCH_CONTINUE;
	write_log(3, line, sizeof(line));
	add_reply_error(client, "ERR not allowed");
	upatch_set_errno(1);
	return upatch_return(ctx, 0);
}
