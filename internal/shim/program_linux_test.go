package shim

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// Not parallel: these tests change the program of all shims of this process.

// use makes f the program of shims until the test ends.
func use(t *testing.T, f *os.File) {
	t.Helper()
	set := func(f *os.File) {
		program.mu.Lock()
		program.file = f
		program.mu.Unlock()
	}
	set(f)
	t.Cleanup(func() { set(nil) })
}

// self is this program as a memory file, unpacked as an embedded one is.
func self(t *testing.T) *os.File {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	f, err := decompress(string(enc.EncodeAll(text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A program that is damaged is not run: shims run this program.
func TestProgram_damaged(t *testing.T) {
	if f, err := decompress("not compressed"); err == nil {
		f.Close()
		t.Error("it was unpacked")
	}
}

func TestProgram_in_memory(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, f := range map[string]*os.File{"in memory": self(t), "cannot be run": null} {
		t.Run(name, func(t *testing.T) {
			use(t, f)
			exit := newRun(t, agented.CapturePipe, "echo done").do()
			if exit.Cause != agented.CauseExit || exit.Code == nil || *exit.Code != 0 {
				t.Fatalf("%+v", exit)
			}
			if now := theProgram(); (now == f) != (name == "in memory") {
				t.Errorf("afterwards it is %v", now)
			}
		})
	}
}

// The result of a child's start is reported through a descriptor that may have any number beyond
// the inherited ones, including the program's.
func TestProgram_any_descriptors(t *testing.T) {
	f := self(t)
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 64)
	if err != nil {
		t.Fatal(err)
	}
	kept := os.NewFile(uintptr(fd), "kept")
	defer kept.Close()
	use(t, kept)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for at := fd - 5; at < fd+5; at++ {
		other, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, at)
		if err != nil {
			t.Fatal(err)
		}
		last := os.NewFile(uintptr(other), "last")
		proc, err := execute(&os.ProcAttr{Env: []string{}, Files: []*os.File{null, null, null, last}})
		if err != nil {
			t.Fatal(err)
		}
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", proc.Pid))
		if err == nil && !strings.Contains(exe, "agshim") {
			t.Errorf("with descriptor %d, the program at %d: the child is %s", other, fd, exe)
		}
		_ = proc.Kill()
		_, _ = proc.Wait()
		last.Close()
		if theProgram() != kept {
			t.Fatalf("with descriptor %d, the program at %d: it is taken not to be runnable", other, fd)
		}
	}
}
