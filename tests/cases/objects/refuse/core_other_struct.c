// refused: `uprobe/exe:f` depends on the layout of `struct task_struct`, of which upatch only knows `struct pt_regs`
#include "upatch.h"
struct task_struct { int pid; } __attribute__((preserve_access_index));
SEC("uprobe/exe:f") int f(struct pt_regs *ctx)
{
	int pid = 0;
	struct task_struct *task = (void *)ctx->di;
	bpf_probe_read_user(&pid, sizeof(pid), &task->pid);
	return pid;
}
