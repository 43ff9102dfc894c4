package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// begun is the mark between "never started" and "may have started". It is on
// disk before the CLI is.
type begun struct {
	Version   int       `json:"v"`
	BootID    string    `json:"boot_id"`
	ShimPID   int       `json:"shim_pid"`
	ShimStart uint64    `json:"shim_start"`
	At        time.Time `json:"at"`
}

// childRecord says which process the CLI is. Pids mean something only until the
// next reboot, so it is not synced.
type childRecord struct {
	Version int       `json:"v"`
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"`
	At      time.Time `json:"at"`
	Cgroup  string    `json:"cgroup,omitempty"` // folder of the CLI's own cgroup
}

// exitRecord is exit.json.
type exitRecord struct {
	Version int `json:"v"`
	agented.Exit
}

// Facts is what a bundle says about its attempt.
type Facts struct {
	Locked   bool // a shim lives
	Spec     bool // spec.json is there
	Begun    bool // begun.json is there: the CLI may have been started
	Exit     bool // exit.json is there: it ended and the log is complete
	SameBoot bool // the machine has not been restarted since it began; false if it has not begun
}

// Verdict is what to do with an attempt that a server finds.
type Verdict int

// The verdicts.
const (
	NeverStarted Verdict = iota // nothing ran: start it
	Running                     // its shim lives: adopt it
	Ended                       // its exit is recorded: read it
	Lost                        // it may have run and nobody saw its end: settle it
)

func (v Verdict) String() string {
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
	return fmt.Sprintf("Verdict(%d)", int(v))
}

// Decide draws the conclusion from the facts. An exit record counts more than
// the lock, which its shim holds for a moment longer; the lock counts more than
// anything else, because only a living process can hold it.
func Decide(f Facts) Verdict {
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

// Inspect reads the facts of a bundle. A bundle that is not there has none.
func Inspect(bundle string) (Facts, error) {
	var f Facts
	// First the lock: a shim that ends after this look has left its record by
	// the later ones.
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
		// A record that cannot be read says that it began and nothing more.
		if readJSON(filepath.Join(bundle, begunFile), &b) == nil {
			f.SameBoot = b.BootID != "" && b.BootID == bootID()
		}
	}
	return f, nil
}

// isLocked reports whether somebody holds the bundle's lock. It asks for a
// shared lock, so that two who ask do not take each other for a shim.
func isLocked(bundle string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(bundle, lockFile), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err == nil {
		// By hand: a child that is just being forked holds the description for
		// a moment longer.
		flock(f, unix.LOCK_UN)
	}
	return false, err
}

// takeLock makes the lock file and takes it. Someone who only asks may hold it
// for an instant, so it tries for a little while. The error is Conflict when a
// shim holds it.
func takeLock(bundle string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(bundle, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for range 50 {
		if err = flock(f, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, agented.Errorf(agented.Conflict, "the attempt has a shim already")
	}
	return nil, err
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// ReadExit reads how an attempt ended. The error is NotFound when that has not
// been written down.
func ReadExit(bundle string) (agented.Exit, error) {
	var r exitRecord
	err := readJSON(filepath.Join(bundle, exitFile), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return agented.Exit{}, agented.Errorf(agented.NotFound, "the attempt has no exit record")
	}
	if err != nil {
		return agented.Exit{}, fmt.Errorf("read attempt's exit: %w", err)
	}
	return r.Exit, nil
}

// RemoveRaw deletes what an attempt that is finished leaves unmasked or has no
// more use for. The records stay. It may be repeated, also when the bundle is
// gone.
func RemoveRaw(bundle string) error {
	var errs []error
	for _, name := range []string{stdinFile, stdoutFile, stderrFile, reserveFile, socketFile, exitFile + ".tmp"} {
		if err := os.Remove(filepath.Join(bundle, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// temporary is behind the name of a file that is not complete yet.
const temporary = ".tmp"

// writeJSON writes v to a file.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// syncFile waits until a file or the names in a folder are on the disk. Tests look on.
var syncFile = (*os.File).Sync

// settleBundle makes durable what the next server goes by: what was meant to run,
// the mark, what the log has reserved, and the names on the way there.
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
	// All are given to the disk before it is waited for any: a journal takes them
	// at once, and the second wait and those behind it are over when the first is.
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

// exitRoom is what the exit record gets allocated ahead, for a full disk, and
// reserveRoom what is behind that until the last lines need it. It is the same file
// because each one that is made and removed makes the next ones slower: ext4 steps
// over the inodes that were freed within some minutes.
const (
	exitRoom    = 16 << 10
	reserveRoom = 64 << 10
)

// prepareExit makes the file that becomes exit.json, with room in it.
func prepareExit(bundle string) error {
	f, err := os.OpenFile(filepath.Join(bundle, exitFile+temporary), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(allocate(f, exitRoom+reserveRoom), f.Close())
}

// giveReserve gives the room up that was kept for the last lines.
func giveReserve(bundle string) {
	path := filepath.Join(bundle, exitFile+temporary)
	if info, err := os.Stat(path); err == nil && info.Size() > exitRoom {
		_ = os.Truncate(path, exitRoom)
	}
}

// writeExit makes the record durable, content first, name second: who sees it
// may rely on the log being complete.
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
	return syncDir(bundle)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
