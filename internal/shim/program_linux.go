package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is the small program that is run as shim; see UseProgram.
var program struct {
	mu   sync.Mutex // guards what follows
	text string     // "" once it is in memory of its own, or of no use
	file *os.File   // it in memory; nil: shims are this program
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

// execute starts the shim's program, or this one where that cannot be run. It goes
// on working when an upgrade replaces the file of this one.
func execute(attr *os.ProcAttr) (*os.Process, error) {
	args := []string{shimName, "shim"}
	if f := theProgram(); f != nil {
		// By a descriptor that the child is given: any other number may be taken, in
		// the child alone, by what its start is reported through.
		with := *attr
		with.Files = append(slices.Clip(attr.Files), f)
		proc, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", len(attr.Files)), args, &with)
		if err == nil {
			return proc, nil
		}
		if forbidden(err) {
			program.mu.Lock()
			program.file = nil
			program.mu.Unlock()
		}
	}
	return os.StartProcess("/proc/self/exe", args, attr)
}

// forbidden reports whether a program that failed to start will always do so,
// rather than for want of something just now.
func forbidden(err error) bool {
	for _, e := range []error{unix.EACCES, unix.EPERM, unix.ENOEXEC, unix.ENOENT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// theProgram is the program in memory; nil if there is none.
func theProgram() *os.File {
	program.mu.Lock()
	defer program.mu.Unlock()
	if program.text != "" {
		// An error is no reason not to run: the other way is there.
		program.file, _ = unpack(program.text)
		releasePages(program.text)
		program.text = ""
	}
	return program.file
}

// unpack puts a program into a file in memory that nobody can change.
func unpack(text string) (_ *os.File, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("agshim", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate("agshim", flags)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "agshim")
	for rest := text; rest != "" && err == nil; rest = rest[min(len(rest), 256<<10):] {
		_, err = f.Write([]byte(rest[:min(len(rest), 256<<10)]))
	}
	if err == nil {
		const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
