package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
)

// dataLock is the right to be the one server of a data folder, held as long as
// its file is open. Its content is for people and scripts: the process id.
type dataLock struct{ f *os.File }

// lockPatience is how long a start waits for the lock. A server that was killed
// a moment ago holds it until the kernel has taken it down.
const lockPatience = 2 * time.Second

// flock takes the lock of a file, waiting for it no longer than lockPatience.
func flock(f *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}

// lockData takes the lock of the data folder, or says who has it.
func lockData(path string) (*dataLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data folder: %w", err)
	}
	if err := flock(f); err != nil {
		held, _ := io.ReadAll(io.LimitReader(f, 64))
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, agented.Errorf(agented.Conflict,
				"another server (process %s) uses the data folder already: end it, or set AGENTED_DATA_DIR to another folder",
				strings.TrimSpace(string(held)))
		}
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the lock of the data folder: %w", err)
	}
	return &dataLock{f}, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// Close gives the lock back. The file stays: removing it would let two servers
// hold the locks of two files of one name.
func (l *dataLock) Close() error { return l.f.Close() }
