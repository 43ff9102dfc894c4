package runlog

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// bootID returns an id that changes with every boot; empty if unknown. It
// prefers the session's id, because the boot time changes when the clock is
// set.
func bootID() string {
	if id, err := unix.Sysctl("kern.bootsessionuuid"); err == nil && id != "" {
		return id
	}
	tv, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return ""
	}
	return strconv.FormatInt(tv.Sec, 10)
}

// datasync syncs the file to disk. Sync uses F_FULLFSYNC, without which macOS
// only flushes to the drive's cache.
func datasync(f *os.File) error { return f.Sync() }
