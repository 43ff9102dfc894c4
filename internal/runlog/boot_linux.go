package runlog

import (
	"os"
	"strings"
	"syscall"
)

// bootID returns an id that changes with every boot; empty if unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// datasync syncs the file's data and size to disk (fdatasync).
func datasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		for {
			if failed = syscall.Fdatasync(int(fd)); failed != syscall.EINTR {
				return
			}
		}
	})
	if failed != nil {
		return os.NewSyscallError("fdatasync", failed)
	}
	return err
}
