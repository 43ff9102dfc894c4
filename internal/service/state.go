package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
)

// StateFile is where a Parent records the state of its server: two files in the data folder. One
// is locked while a Parent is alive, which proves that the other is current and names the right
// process.
type StateFile struct{ Dir string }

// State is what a Parent records.
type State struct {
	PID      int    `json:"pid"`      // pid of the parent
	Program  string `json:"program"`  // program that it starts
	Settings string `json:"settings"` // digest of the environment at its start
	Address  string `json:"address"`  // AGENTED_BIND
	Server   int    `json:"server"`   // pid of the server; 0 if none is running
	Ready    bool   `json:"ready"`
	Failed   int    `json:"failed"`             // starts since a server was last ready
	Last     string `json:"last"`               // how the last of those starts ended
	Refused  string `json:"refused,omitempty"`  // why the last replacement was refused
	Refusals int    `json:"refusals,omitempty"` // number of refused replacements
}

func (f StateFile) lock() string  { return filepath.Join(f.Dir, "supervisor.lock") }
func (f StateFile) state() string { return filepath.Join(f.Dir, "supervisor.json") }

// patience is how long a Parent waits for one that is about to end.
const patience = 2 * time.Second

// acquire makes this process the only Parent of the data folder.
func (f StateFile) acquire() (*os.File, error) {
	lock, err := os.OpenFile(f.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(context.Background(), lock, 10*time.Millisecond, patience); err != nil {
		pid := f.holder()
		lock.Close()
		if errors.Is(err, filelock.ErrHeld) {
			return nil, agented.Errorf(agented.Conflict,
				"the server on %s is already supervised by process %d: use `agented stop` to stop it, `agented restart` to replace it, or --replace to start in its place", f.Dir, pid)
		}
		return nil, fmt.Errorf("lock %s: %w", f.lock(), err)
	}
	if err := errors.Join(lock.Truncate(0), writeAll(lock, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		filelock.Release(lock)
		return nil, err
	}
	return lock, nil
}

func writeAll(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// holder returns the pid that is recorded in the lock, or 0.
func (f StateFile) holder() int {
	b, _ := os.ReadFile(f.lock())
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// held reports whether a Parent is alive.
func (f StateFile) held() bool { return lockedFile(f.lock()) }

func lockedFile(path string) bool {
	held, err := filelock.Held(path)
	return err == nil && held
}

// Read returns the recorded state; it returns false if no Parent is alive.
func (f StateFile) Read() (State, bool) {
	if !f.held() {
		return State{}, false
	}
	s := State{PID: f.holder()}
	b, err := os.ReadFile(f.state())
	if err != nil {
		return s, true
	}
	var said State
	if json.Unmarshal(b, &said) == nil && said.PID == s.PID {
		s = said
	}
	return s, true
}

func (f StateFile) write(s State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return disk.ReplaceFile(f.state(), append(b, '\n'), 0o600)
}

func (f StateFile) remove() { _ = os.Remove(f.state()) }

// Signal sends a signal to the Parent only: it opens a handle of the process first and then
// checks the lock again.
func (f StateFile) Signal(sig syscall.Signal) error {
	return signalHolder(f.lock(), f.holder(), sig)
}

// ParentExited reports whether no Parent is alive.
func (f StateFile) ParentExited() bool { return !f.held() }

// SignalServer sends a signal to the server that holds the lock at the path; it returns false if
// there is none.
func SignalServer(lock string, sig syscall.Signal) (pid int, ok bool, err error) {
	if !lockedFile(lock) {
		return 0, false, nil
	}
	b, err := os.ReadFile(lock)
	if err != nil {
		return 0, true, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, true, fmt.Errorf("%s does not contain a pid: %w", lock, err)
	}
	return pid, true, signalHolder(lock, pid, sig)
}

// Locked reports whether a process holds the lock at the path.
func Locked(lock string) bool { return lockedFile(lock) }

// signalHolder signals the process that holds a lock. It opens a handle of the process before it
// checks that the process still holds the lock, so that it cannot hit another process with a
// reused pid.
func signalHolder(lock string, pid int, sig syscall.Signal) error {
	gone := agented.Errorf(agented.NotFound, "no server holds %s", lock)
	if pid <= 0 {
		return gone
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return gone.Because(err)
	}
	defer process.Release()
	b, err := os.ReadFile(lock)
	if err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(pid) || !lockedFile(lock) {
		return gone
	}
	if err := process.Signal(sig); err != nil {
		return agented.Errorf(agented.Denied, "process %d, which holds %s, could not be signalled: run the command as the same user", pid, lock).Because(err)
	}
	return nil
}
