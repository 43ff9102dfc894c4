package runlog

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// bootID changes with every start of the machine; empty if it is unknown. The
// session's id is asked first: the boot time moves when the clock is set.
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

// datasync writes the file to the disk. Sync asks for F_FULLFSYNC, without
// which macOS stops at the drive's cache.
func datasync(f *os.File) error { return f.Sync() }
