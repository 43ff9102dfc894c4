package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/agented/agented"
)

// startPatience bounds the wait for the start of the CLI, in case a disk hangs.
const startPatience = time.Minute

// Start creates the bundle, starts a shim on it and returns when the CLI runs or cannot be
// started. In the second case the handle ends at once with [agented.CauseNoStart] and a message.
// An error means that nothing was started: Conflict if the bundle was used before, ENOSPC or
// EDQUOT if the disk is full. If stdin is nil, it is /dev/null.
//
// The calling process may end at any moment. The next server calls [Inspect].
func Start(bundle string, spec Spec, p Private, stdin []byte) (*Handle, error) {
	spec.Version, spec.BootID, spec.Stdin = Version, bootID(), stdin != nil
	spec.Broker, spec.Credentials = p.Broker != nil, p.Broker.Holds()
	if err := spec.check(); err != nil {
		return nil, err
	}
	if err := layOut(bundle, &spec, stdin); err != nil {
		return nil, fmt.Errorf("prepare attempt: %w", err)
	}
	// The shim receives the lock and is the only process that keeps it.
	lock, err := takeLock(bundle)
	if err != nil {
		return nil, fmt.Errorf("lock attempt: %w", err)
	}
	defer lock.Close()
	hand := handover{Args: spec.Args, Env: p.Env, Mask: p.Mask}
	given := []*os.File{lock}
	if p.Broker != nil {
		config, err := json.Marshal(p.Broker.Config)
		if err != nil {
			return nil, fmt.Errorf("start shim: %w", err)
		}
		hand.Broker = []string{string(config)}
		if p.Broker.Listener != nil {
			given = append(given, p.Broker.Listener)
		}
	}
	a, err := launch(bundle, given, hand.encode())
	lock.Close()
	switch {
	case err != nil:
		if f, lookErr := Inspect(bundle); lookErr == nil && f.Begun {
			// The shim died so late that the CLI may have been started.
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

// full reports whether an error means that disk space, inodes or the user's quota are used up.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// layOut creates the bundle with the files that the shim and the next server need. The shim makes
// it durable.
func layOut(bundle string, spec *Spec, stdin []byte) error {
	if err := os.Mkdir(bundle, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, name := range []string{begunFile, exitFile} {
		if _, err := os.Lstat(filepath.Join(bundle, name)); err == nil {
			return agented.Errorf(agented.Conflict, "the attempt has already begun")
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
