package secret

import "golang.org/x/sys/unix"

// Undumpable closes this process to others of the same user: they can no longer
// read its environment or memory below /proc, attach a debugger, or get a core
// dump. Children that execute another program are as open as they would be
// without it.
func Undumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
