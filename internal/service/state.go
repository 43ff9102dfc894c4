package service

import (
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
)

// StateFile is where a Parent says how its server does: two files in the data
// folder. The one is locked as long as a Parent lives, so that what the other
// says can be believed and the process that it names is the one that is meant.
type StateFile struct{ Dir string }

// State is what a Parent says.
type State struct {
	PID      int    `json:"pid"`      // of the parent
	Program  string `json:"program"`  // that it starts
	Settings string `json:"settings"` // digest of the environment it was started with
	Address  string `json:"address"`  // AGENTED_BIND
	Server   int    `json:"server"`   // 0: none runs
	Ready    bool   `json:"ready"`
	Failed   int    `json:"failed"`             // starts since one was ready
	Last     string `json:"last"`               // how the last of those ended
	Refused  string `json:"refused,omitempty"`  // why the server was not replaced when that was asked last
	Refusals int    `json:"refusals,omitempty"` // how often that was so
}

func (f StateFile) lock() string  { return filepath.Join(f.Dir, "supervisor.lock") }
func (f StateFile) state() string { return filepath.Join(f.Dir, "supervisor.json") }

// patience is how long a Parent waits for one that is just going.
const patience = 2 * time.Second

// take makes this process the one Parent of the data folder.
func (f StateFile) take() (*os.File, error) {
	lock, err := os.OpenFile(f.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(end) {
			continue
		}
		pid := f.holder()
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, agented.Errorf(agented.Conflict,
				"a server is supervised on %s already, by process %d: `agented stop` ends it, `agented restart` replaces it, and --replace does what fits", f.Dir, pid)
		}
		return nil, fmt.Errorf("lock %s: %w", f.lock(), err)
	}
	if err := errors.Join(lock.Truncate(0), writeAll(lock, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func writeAll(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// holder is the process that has noted itself in the lock; 0 if none has.
func (f StateFile) holder() int {
	b, _ := os.ReadFile(f.lock())
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// held reports whether a Parent lives.
func (f StateFile) held() bool { return lockedFile(f.lock()) }

func lockedFile(path string) bool {
	lock, err := os.Open(path)
	if err != nil {
		return false
	}
	defer lock.Close()
	// A shared lock, so that two who look at once do not take each other for one.
	return errors.Is(syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// Read returns what the Parent says; false if none lives.
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
	return writeFile(f.state(), append(b, '\n'), 0o600)
}

func (f StateFile) remove() { _ = os.Remove(f.state()) }

// Signal sends a signal to the Parent, and to nobody else: the process is held
// on to first, and then the lock is looked at again.
func (f StateFile) Signal(sig syscall.Signal) error {
	return signalHolder(f.lock(), f.holder(), sig)
}

// Gone reports whether no Parent lives.
func (f StateFile) Gone() bool { return !f.held() }

// SignalServer signals the server that holds the lock at the path, which is its
// data folder's; false if none does.
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
		return 0, true, fmt.Errorf("%s names no process: %w", lock, err)
	}
	return pid, true, signalHolder(lock, pid, sig)
}

// Locked reports whether somebody holds the lock at the path.
func Locked(lock string) bool { return lockedFile(lock) }

// signalHolder signals the process that is said to hold a lock. It gets hold of
// the process before it looks whether the lock is still that process's, so that a
// number that has been given to another is not hit.
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
		return agented.Errorf(agented.Denied, "process %d, which holds %s, could not be signalled: ask as its user", pid, lock).Because(err)
	}
	return nil
}
