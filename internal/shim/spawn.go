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

// spawn starts the CLI and returns its pid. The error is a sentence for people.
//
// It runs on a thread of its own that lives until over is closed: the kernel
// takes "the parent died" to be the end of the thread that forked.
func spawn(spec *Spec, given *handover, in *os.File, out *outlet, group *cgroup, over <-chan struct{}) (int, error) {
	type result struct {
		pid int
		err error
	}
	started := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		pid, err := fork(spec, given, in, out, group)
		if err != nil && group != nil {
			// A group that was handed over may still refuse: start without.
			pid, err = fork(spec, given, in, out, nil)
		}
		started <- result{pid, err}
		if err == nil {
			<-over // keeps the thread, which ends with this
		}
	}()
	r := <-started
	if r.err != nil {
		return 0, startError(spec, r.err)
	}
	return r.pid, nil
}

func fork(spec *Spec, given *handover, in *os.File, out *outlet, group *cgroup) (int, error) {
	sys := &syscall.SysProcAttr{Setpgid: true}
	if spec.Capture == agented.CapturePTY {
		sys = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	}
	withChild(sys, group)
	attr := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   given.Env,
		Files: []uintptr{in.Fd(), out.child[0].Fd(), out.child[1].Fd()},
		Sys:   sys,
	}
	for try := 0; ; try++ {
		pid, err := syscall.ForkExec(spec.Path, given.Args, attr)
		// Somebody is just writing the program: an installation, or another
		// process between fork and exec.
		if !errors.Is(err, syscall.ETXTBSY) || try == 10 {
			return pid, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// startError says why a program could not be started and names what is wrong.
func startError(spec *Spec, err error) error {
	info, statErr := os.Stat(spec.Dir)
	if statErr != nil || !info.IsDir() {
		return fmt.Errorf("the working directory %s is not there", spec.Dir)
	}
	file, statErr := os.Stat(spec.Path)
	var why string
	switch {
	case errors.Is(statErr, os.ErrNotExist):
		why = "was not found"
	case statErr != nil:
		why = "cannot be looked at: " + plainCause(statErr)
	case file.IsDir():
		why = "is a directory"
	case errors.Is(err, syscall.ENOENT):
		why = "names an interpreter in its first line that was not found"
	case errors.Is(err, syscall.EACCES) && file.Mode()&0o111 == 0:
		why = "is not executable (chmod +x)"
	case errors.Is(err, syscall.EACCES):
		why = "or the working directory " + spec.Dir + " may not be used by this user: permission denied"
	case errors.Is(err, syscall.ENOEXEC):
		why = "is not a program for this machine (a script needs a first line such as #!/bin/sh)"
	case errors.Is(err, syscall.E2BIG):
		why = "cannot be given so many arguments and variables: the system allows fewer bytes"
	case errors.Is(err, syscall.ETXTBSY):
		why = "is being written by somebody"
	case errors.Is(err, syscall.EINVAL):
		why = "cannot be given a NUL byte in an argument or variable"
	case errors.Is(err, syscall.EAGAIN):
		why = "would be one process more than this user may have"
	default:
		why = "could not be started: " + plainCause(err)
	}
	return fmt.Errorf("the program %s %s", strings.ToValidUTF8(spec.Path, "\uFFFD"), why)
}
