package runlog

import (
	"os"
	"strings"
	"syscall"
)

// bootID changes with every start of the machine; empty if it is unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// datasync writes the file's data and its size to the disk, and no more than that.
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
