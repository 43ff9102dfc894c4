package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/filelock"
)

// dataLock makes the process the only server of a data folder, as long as its file is open. The
// file contains the pid, for people and scripts.
type dataLock struct{ f *os.File }

// lockPatience is how long a start waits for the lock. The lock of a killed server is held until
// the kernel has released its resources.
const lockPatience = 2 * time.Second

// lockData locks the data folder, or returns an error that names the process that holds the lock.
func lockData(path string) (*dataLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data folder: %w", err)
	}
	if err := filelock.Wait(context.Background(), f, 10*time.Millisecond, lockPatience); err != nil {
		held, _ := io.ReadAll(io.LimitReader(f, 64))
		f.Close()
		if errors.Is(err, filelock.ErrHeld) {
			return nil, agented.Errorf(agented.Conflict,
				"another server (process %s) uses the data folder: stop it, or set AGENTED_DATA_DIR to another folder",
				strings.TrimSpace(string(held)))
		}
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		filelock.Release(f)
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
func (l *dataLock) Close() error { return filelock.Release(l.f) }
