package secret

import "golang.org/x/sys/unix"

// Undumpable protects this process from other processes of the same user: they
// can no longer read its environment or memory in /proc, attach a debugger, or
// get a core dump. Child processes that execute another program are not
// protected.
func Undumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
