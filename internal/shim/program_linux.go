package shim

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is the small program that is run as shim; see UseProgram.
var program struct {
	mu   sync.Mutex // guards what follows
	text string     // "" once it is in memory of its own, or of no use
	path string
}

// UseProgram has shims run another program than this one: smaller, with nothing
// in it but Main. It is given as its text, which must be a part of this program's
// file; "" is none. Where the system does not
// let it be run, shims are this program as before.
func UseProgram(text string) {
	program.mu.Lock()
	program.text = text
	program.mu.Unlock()
}

// selfPath is the program to run as shim. It goes on working when an upgrade
// replaces the file.
func selfPath() (string, error) {
	program.mu.Lock()
	defer program.mu.Unlock()
	if program.text != "" {
		// An error is no reason not to run: the other way is there.
		program.path, _ = unpack(program.text)
		releasePages(program.text)
		program.text = ""
	}
	if program.path != "" {
		return program.path, nil
	}
	return "/proc/self/exe", nil
}

// notRunnable notes that a path cannot be executed, and reports whether there is
// another one to try.
func notRunnable(path string) bool {
	program.mu.Lock()
	defer program.mu.Unlock()
	if path == "" || path != program.path {
		return false
	}
	program.path = ""
	return true
}

// unpack puts a program into a file in memory that nobody can change, and
// returns its path.
func unpack(text string) (string, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("agshim", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate("agshim", flags)
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	for rest := text; rest != ""; {
		n, err := unix.Write(fd, []byte(rest[:min(len(rest), 256<<10)]))
		if err != nil {
			return "", err
		}
		rest = rest[n:]
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return "", err
	}
	// Beyond the descriptors that a child is given, which are put in place before
	// the path is looked up.
	keep, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/self/fd/%d", keep), nil
}

// releasePages gives pages of this program's file back, which are read again if they
// are wanted again.
func releasePages(text string) {
	const page = 4096
	from := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	skip := int(-from & (page - 1))
	if size := (len(text) - skip) &^ (page - 1); size > 0 {
		_ = unix.Madvise(unsafe.Slice(unsafe.StringData(text[skip:]), size), unix.MADV_DONTNEED)
	}
}
