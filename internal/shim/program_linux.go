package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// program is the small program that runs as shim; see UseProgram.
var program struct {
	mu   sync.Mutex // guards the following fields
	text string     // compressed; "" once it is in a memory file, or unusable
	file *os.File   // memory file; if nil, shims run this program
}

// UseProgram makes shims run another, smaller program that contains only Main. text is its
// content, compressed with zstd, and must be part of this program's file; "" means none. If the
// system does not permit running it, shims run this program.
func UseProgram(text string) {
	program.mu.Lock()
	program.text = text
	program.mu.Unlock()
}

// execute starts the shim's program, or this program if that is not possible. It also works after
// an upgrade has replaced this program's file.
func execute(attr *os.ProcAttr) (*os.Process, error) {
	args := []string{shimName, "shim"}
	if f := theProgram(); f != nil {
		// Use a descriptor that the child inherits: the child alone may use any other number, to
		// report the result of its start.
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

// forbidden reports whether a failure to start a program is permanent, as opposed to a temporary
// lack of resources.
func forbidden(err error) bool {
	for _, e := range []error{unix.EACCES, unix.EPERM, unix.ENOEXEC, unix.ENOENT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// theProgram returns the memory file of the program, or nil if there is none.
func theProgram() *os.File {
	program.mu.Lock()
	defer program.mu.Unlock()
	if program.text != "" {
		// On an error shims run this program instead.
		program.file, _ = decompress(program.text)
		releasePages(program.text)
		program.text = ""
	}
	return program.file
}

// decompress writes a compressed program to a sealed memory file.
func decompress(text string) (*os.File, error) {
	dec, err := zstd.NewReader(strings.NewReader(text), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return unpack(dec)
}

// unpack writes a program to a sealed memory file.
func unpack(from io.Reader) (_ *os.File, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("agshim", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate("agshim", flags)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "agshim")
	if _, err = io.Copy(f, from); err == nil {
		const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// releasePages releases pages of this program's file; they are read again on demand.
func releasePages(text string) {
	const page = 4096
	from := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	skip := int(-from & (page - 1))
	if size := (len(text) - skip) &^ (page - 1); size > 0 {
		_ = unix.Madvise(unsafe.Slice(unsafe.StringData(text[skip:]), size), unix.MADV_DONTNEED)
	}
}
