package pgtest

import "syscall"

// dieWithParent lets the server shut down at once when the thread that started it
// ends, also when the process is killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
