package shim

import (
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
	// The shim is given the lock and is the only one that keeps it.
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
// was meant to run. The shim makes it durable.
func layOut(bundle string, spec *Spec, stdin []byte) error {
	if err := os.Mkdir(bundle, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
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
		return os.WriteFile(filepath.Join(bundle, stdinFile), stdin, 0o600)
	}
	return nil
}
