/* An observer changes an argument.
 *
 * subject: ctx->di
 * must: a register of ctx must be one that this kind of program may write
 * known: only reads ctx
 * hint: SEC("upatch/module:function")
 */
#include "upatch.h"

#ifdef MENDED
SEC("upatch/exe:f")
#else
SEC("uprobe//usr/bin/true:f")
#endif
int watch(struct pt_regs *ctx)
{
	ctx->di = 0; /* HERE */
	return 0;
}
