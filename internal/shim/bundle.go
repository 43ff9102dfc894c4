package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/runlog"
)

// begun is the record that separates "never started" from "may have started". It is on disk
// before the CLI starts.
type begun struct {
	Version   int       `json:"v"`
	BootID    string    `json:"boot_id"`
	ShimPID   int       `json:"shim_pid"`
	ShimStart uint64    `json:"shim_start"`
	At        time.Time `json:"at"`
}

// childRecord identifies the CLI's process. Pids are valid only until the next reboot, so it is
// not synced.
type childRecord struct {
	Version int       `json:"v"`
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"`
	At      time.Time `json:"at"`
	Cgroup  string    `json:"cgroup,omitempty"` // folder of the CLI's cgroup
}

// exitRecord is the content of exit.json.
type exitRecord struct {
	Version int `json:"v"`
	agented.Exit
}

// Facts describes the state of a bundle.
type Facts struct {
	Locked   bool // a shim is alive
	Spec     bool // spec.json exists
	Begun    bool // begun.json exists: the CLI may have been started
	Exit     bool // exit.json exists: the attempt has ended and the log is complete
	SameBoot bool // the machine has not been restarted since the attempt began; false if it has not begun
}

// BundleState is the state of an attempt that a server finds.
type BundleState int

// The states of an attempt.
const (
	NeverStarted BundleState = iota // nothing ran: start it
	Running                         // its shim is alive: adopt it
	Ended                           // its exit is recorded: finish it
	Lost                            // it may have run, but its end is unknown: settle it
)

func (v BundleState) String() string {
	switch v {
	case NeverStarted:
		return "never started"
	case Running:
		return "running"
	case Ended:
		return "ended"
	case Lost:
		return "lost"
	}
	return fmt.Sprintf("BundleState(%d)", int(v))
}

// Decide derives the state from the facts. An exit record takes precedence over the lock, which
// the shim holds a moment longer. The lock takes precedence over the rest, because only a living
// process can hold it.
func Decide(f Facts) BundleState {
	switch {
	case f.Exit:
		return Ended
	case f.Locked:
		return Running
	case f.Begun:
		return Lost
	}
	return NeverStarted
}

// Inspect reads the facts of a bundle. A missing bundle has none.
func Inspect(bundle string) (Facts, error) {
	var f Facts
	// The lock first: a shim that ends after this check has written its record before the checks
	// below.
	locked, err := isLocked(bundle)
	if err != nil {
		return f, fmt.Errorf("inspect attempt: %w", err)
	}
	f.Locked = locked
	for name, there := range map[string]*bool{specFile: &f.Spec, begunFile: &f.Begun, exitFile: &f.Exit} {
		_, err := os.Stat(filepath.Join(bundle, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f, fmt.Errorf("inspect attempt: %w", err)
		}
		*there = err == nil
	}
	if f.Begun {
		var b begun
		// An unreadable record still proves that the attempt began.
		if readJSON(filepath.Join(bundle, begunFile), &b) == nil {
			f.SameBoot = b.BootID != "" && b.BootID == bootID()
		}
	}
	return f, nil
}

// isLocked reports whether a process holds the bundle's lock. It requests a shared lock, so that
// concurrent checks do not take each other for a shim.
func isLocked(bundle string) (bool, error) {
	held, err := filelock.Held(filepath.Join(bundle, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return held, err
}

// takeLock creates and locks the lock file. A concurrent check may hold the lock for an instant,
// so it retries briefly. The error is Conflict if a shim holds the lock.
func takeLock(bundle string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(bundle, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = filelock.Wait(context.Background(), f, 2*time.Millisecond, 100*time.Millisecond); err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, filelock.ErrHeld) {
		return nil, agented.Errorf(agented.Conflict, "the attempt already has a shim")
	}
	return nil, err
}

// ReadExit reads the exit record of an attempt. The error is NotFound if there is none.
func ReadExit(bundle string) (agented.Exit, error) {
	var r exitRecord
	err := readJSON(filepath.Join(bundle, exitFile), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return agented.Exit{}, agented.Errorf(agented.NotFound, "the attempt has no exit record")
	}
	if err != nil {
		return agented.Exit{}, fmt.Errorf("read the attempt's exit record: %w", err)
	}
	return r.Exit, nil
}

// RemoveRaw deletes the unmasked raw output and temporary files of a finished attempt. The
// records are kept. It can be repeated, also if the bundle no longer exists.
func RemoveRaw(bundle string) error {
	var errs []error
	for _, name := range []string{stdinFile, stdoutFile, stderrFile, unmaskedFile, reserveFile, socketFile, brokerFile, exitFile + ".tmp"} {
		if err := os.Remove(filepath.Join(bundle, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// temporary is the suffix of files that are not complete yet.
const temporary = ".tmp"

// writeJSON writes v to a file.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// syncFile calls fsync on a file or a folder. Tests replace it.
var syncFile = (*os.File).Sync

// settleBundle calls fsync on everything that the next server needs: the spec, the begun record,
// the log's reservation, and the folders that contain them.
func settleBundle(bundle string) (err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	contents := []string{specFile, begunFile, "../" + runlog.FileName}
	for _, name := range append(contents, ".", "..", "../..") {
		f, err := os.Open(bundle + "/" + name)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	// Start the writeback of all files before the first fsync: the journal then commits them
	// together, and the later calls return at once.
	for _, f := range files[:len(contents)] {
		startSync(f)
	}
	for _, f := range files {
		if err := syncFile(f); err != nil {
			return err
		}
	}
	return nil
}

// exitRoom is the space in bytes allocated for the exit record in advance, for a full disk.
// reserveRoom is further space that is released for the last log lines. Both are in one file,
// because each file that is created and removed slows down later ones: ext4 skips inodes that
// were freed within the last minutes.
const (
	exitRoom    = 16 << 10
	reserveRoom = 64 << 10
)

// prepareExit creates the file that becomes exit.json and allocates its space.
func prepareExit(bundle string) error {
	f, err := os.OpenFile(filepath.Join(bundle, exitFile+temporary), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(allocate(f, exitRoom+reserveRoom), f.Close())
}

// releaseReserve releases the space that is reserved for the last lines.
func releaseReserve(bundle string) {
	path := filepath.Join(bundle, exitFile+temporary)
	if info, err := os.Stat(path); err == nil && info.Size() > exitRoom {
		_ = os.Truncate(path, exitRoom)
	}
}

// writeExit makes the exit record durable, the content before the name: when exit.json exists,
// the log is complete.
func writeExit(bundle string, exit agented.Exit) error {
	b, err := json.Marshal(exitRecord{Version: Version, Exit: exit})
	if err != nil {
		return err
	}
	path := filepath.Join(bundle, exitFile)
	f, err := os.OpenFile(path+temporary, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+temporary, path); err != nil {
		return err
	}
	return disk.SyncDir(bundle)
}

// folderDeleted reports whether an error of writeExit means that the bundle was deleted while the
// attempt ran: only then is a file that would be created reported as missing.
func folderDeleted(err error) bool {
	failed, ok := errors.AsType[*fs.PathError](err)
	return ok && failed.Op == "open" && errors.Is(err, fs.ErrNotExist)
}
