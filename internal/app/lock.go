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

// dataLock makes the process the only server of a data folder, as long as its file is open. The
// file contains the pid, for people and scripts.
type dataLock struct{ f *os.File }

// lockPatience is how long a start waits for the lock. The lock of a killed server is held until
// the kernel has released its resources.
const lockPatience = 2 * time.Second

// flock locks a file and waits at most lockPatience.
func flock(f *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}

// lockData locks the data folder, or returns an error that names the process that holds the lock.
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
				"another server (process %s) uses the data folder: stop it, or set AGENTED_DATA_DIR to another folder",
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

// Close releases the lock. The file is kept: if it were removed, two servers could hold locks on
// different files of the same name.
func (l *dataLock) Close() error { return l.f.Close() }
