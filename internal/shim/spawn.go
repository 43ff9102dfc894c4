package shim

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
)

// spawn starts the CLI and returns its pid, and the sandbox if there is one. The error is a
// message for users.
//
// It uses a thread that lives until over is closed, because the kernel sends the parent-death
// signal when the forking thread ends.
func spawn(spec *Spec, given *handover, in *os.File, out *outlet, group *cgroup, over <-chan struct{}) (int, *box, error) {
	type result struct {
		pid int
		box *box
		err error
	}
	started := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		start := fork
		if spec.Sandbox != nil {
			start = forkBox
		}
		pid, b, err := start(spec, given, in, out, group)
		if err != nil && group != nil {
			// The kernel may reject a delegated group: start without it.
			pid, b, err = start(spec, given, in, out, nil)
		}
		started <- result{pid, b, err}
		if err == nil {
			<-over // keeps the thread, which ends with this goroutine
		}
	}()
	r := <-started
	if r.err != nil {
		var refused sandboxError
		if errors.As(r.err, &refused) {
			return 0, nil, r.err
		}
		return 0, nil, startError(spec, r.err)
	}
	return r.pid, r.box, nil
}

func fork(spec *Spec, given *handover, in *os.File, out *outlet, group *cgroup) (int, *box, error) {
	sys := childAttr(spec.Capture)
	withChild(sys, group)
	pid, err := forkExec(spec.Path, given.Args, &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   given.Env,
		Files: []uintptr{in.Fd(), out.child[0].Fd(), out.child[1].Fd()},
		Sys:   sys,
	})
	return pid, nil, err
}

// sandboxError is a message for users about a failed start in a sandbox.
type sandboxError string

func (e sandboxError) Error() string { return string(e) }

// childAttr makes the CLI the leader of its own process group, or of its own session with the
// terminal.
func childAttr(c agented.Capture) *syscall.SysProcAttr {
	if c == agented.CapturePTY {
		return &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	}
	return &syscall.SysProcAttr{Setpgid: true}
}

// forkExec starts a program.
func forkExec(path string, args []string, attr *syscall.ProcAttr) (int, error) {
	for try := 0; ; try++ {
		pid, err := syscall.ForkExec(path, args, attr)
		// Another process is writing the program: an installation, or a process between fork and
		// exec.
		if !errors.Is(err, syscall.ETXTBSY) || try == 10 {
			return pid, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// startError explains why a program could not be started.
func startError(spec *Spec, err error) error {
	info, statErr := os.Stat(spec.Dir)
	if statErr != nil || !info.IsDir() {
		return fmt.Errorf("the working directory %s does not exist", spec.Dir)
	}
	file, statErr := os.Stat(spec.Path)
	var why string
	switch {
	case errors.Is(statErr, os.ErrNotExist):
		why = "was not found"
	case statErr != nil:
		why = "cannot be accessed: " + plainCause(statErr)
	case file.IsDir():
		why = "is a folder"
	case errors.Is(err, syscall.ENOENT):
		why = "has an interpreter in its first line that was not found"
	case errors.Is(err, syscall.EACCES) && file.Mode()&0o111 == 0:
		why = "is not executable (run chmod +x)"
	case errors.Is(err, syscall.EACCES):
		why = "or the working directory " + spec.Dir + " cannot be used by this user: permission denied"
	case errors.Is(err, syscall.ENOEXEC):
		why = "is not a program for this machine (a script needs a first line such as #!/bin/sh)"
	case errors.Is(err, syscall.E2BIG):
		why = "cannot be started: its arguments and environment exceed the system's limit"
	case errors.Is(err, syscall.ETXTBSY):
		why = "is being written by another process"
	case errors.Is(err, syscall.EINVAL):
		why = "cannot be started: an argument or variable contains a NUL byte"
	case errors.Is(err, syscall.EAGAIN):
		why = "cannot be started: this user has reached the system's process limit"
	default:
		why = "could not be started: " + plainCause(err)
	}
	return fmt.Errorf("the program %s %s", strings.ToValidUTF8(spec.Path, "\uFFFD"), why)
}
