package shim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/agented/agented"
)

// startPatience bounds the wait for the shim to say that the CLI runs. A disk
// that hangs is what it is for.
const startPatience = time.Minute

// Start makes the bundle, starts a shim on it and returns when that says that
// the CLI runs, or that it cannot be started: then the handle ends at once with
// [agented.CauseNoStart] and a sentence. An error means that nothing was
// started; it is Conflict when the bundle was used before, and ENOSPC or EDQUOT
// when there was no room for it. stdin nil is /dev/null.
//
// The process that calls Start may end at any moment. The next one asks
// [Inspect].
func Start(bundle string, spec Spec, p Private, stdin []byte) (*Handle, error) {
	spec.Version, spec.BootID, spec.Stdin = Version, bootID(), stdin != nil
	if err := spec.check(); err != nil {
		return nil, err
	}
	if err := layOut(bundle, &spec, stdin); err != nil {
		return nil, fmt.Errorf("prepare attempt: %w", err)
	}
	// The shim inherits the lock and is the only one that keeps it.
	lock, err := takeLock(bundle)
	if err != nil {
		return nil, fmt.Errorf("lock attempt: %w", err)
	}
	defer lock.Close()
	hand := handover{Args: spec.Args, Env: p.Env, Mask: p.Mask}
	a, err := launch(bundle, lock, hand.encode())
	lock.Close()
	switch {
	case err != nil:
		if f, lookErr := Inspect(bundle); lookErr == nil && f.Begun {
			// It died so late that the CLI may have been started.
			return &Handle{bundle: bundle, execution: spec.Execution}, nil
		}
		return nil, fmt.Errorf("start shim: %w", err)
	case a.Full:
		return nil, fmt.Errorf("start shim: %s: %w", a.Error, syscall.ENOSPC)
	case a.Error != "":
		return nil, fmt.Errorf("start shim: %s", a.Error)
	}
	return &Handle{bundle: bundle, execution: spec.Execution, pid: a.PID}, nil
}

// full reports whether an error is for want of room: on the disk, of its files,
// or of what this user may have of it.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// layOut makes the bundle: what the shim needs, and for the next server what
// was meant to run.
func layOut(bundle string, spec *Spec, stdin []byte) error {
	err := os.Mkdir(bundle, 0o700)
	made := err == nil
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, name := range []string{begunFile, exitFile} {
		if _, err := os.Lstat(filepath.Join(bundle, name)); err == nil {
			return agented.Errorf(agented.Conflict, "the attempt has begun before")
		}
	}
	if err := writeJSON(filepath.Join(bundle, specFile), spec); err != nil {
		return err
	}
	if stdin != nil {
		if err := os.WriteFile(filepath.Join(bundle, stdinFile), stdin, 0o600); err != nil {
			return err
		}
	}
	if err := syncDir(bundle); err != nil || !made {
		return err
	}
	return syncDir(filepath.Dir(bundle))
}

// launch starts the shim process and waits for its answer.
func launch(bundle string, lock *os.File, hand []byte) (answer, error) {
	var a answer
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return a, err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(bundle, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return a, err
	}
	defer log.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return a, err
	}
	defer readyR.Close()
	defer readyW.Close()
	handR, handW, err := os.Pipe()
	if err != nil {
		return a, err
	}
	defer handR.Close()
	defer handW.Close()
	proc, err := execute(&os.ProcAttr{
		Dir: bundle,
		// One processor and a small heap from the first instruction on.
		Env:   []string{"GOMAXPROCS=1", "GOGC=25"},
		Files: []*os.File{null, null, log, lock, readyW, handR},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return a, err
	}
	// Should this process live on, it must not leave a zombie behind.
	go func() { _, _ = proc.Wait() }()
	readyW.Close()
	handR.Close()
	// More than a pipe holds may have to go over, and the shim may die before it
	// has read all: then the write fails, and so does the answer.
	go func() {
		_, _ = handW.Write(hand)
		handW.Close()
	}()
	_ = readyR.SetReadDeadline(time.Now().Add(startPatience))
	line, err := bufio.NewReader(readyR).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		_ = proc.Kill()
		waitUnlocked(bundle)
		return a, fmt.Errorf("no answer from the shim (%s says why): %w", logFile, err)
	}
	return a, nil
}

// execute starts the shim's program, or this one where that cannot be run.
func execute(attr *os.ProcAttr) (*os.Process, error) {
	for {
		exe, err := selfPath()
		if err != nil {
			return nil, err
		}
		proc, err := os.StartProcess(exe, []string{shimName, "shim"}, attr)
		if err == nil || !notRunnable(exe) {
			return proc, err
		}
	}
}

// waitUnlocked waits for a shim that was just killed to be gone.
func waitUnlocked(bundle string) {
	for range 500 {
		if locked, err := isLocked(bundle); err != nil || !locked {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
