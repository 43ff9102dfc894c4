package vault

import "syscall"

// endWithParent makes the kernel kill the child when the thread that started it ends.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
