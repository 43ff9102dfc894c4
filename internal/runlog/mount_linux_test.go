package runlog

import "syscall"

func mountSmall(dir string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
}

func unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }
