// Package filelock locks files against other processes with flock.
//
// A lock belongs to the open file, not to the process: a child that is being
// started holds a copy of it until it calls exec. Closing the file alone may
// therefore leave it locked for a moment. [Release] unlocks for all copies.
package filelock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld means that another process, or another open file of this one, holds
// the lock.
var ErrHeld = errors.New("the file is locked by another process")

// Try locks f exclusively, or returns ErrHeld.
func Try(f *os.File) error { return flock(f, unix.LOCK_EX|unix.LOCK_NB) }

// Wait locks f exclusively. It asks again every pause until ctx is done or
// patience has passed, and then returns ErrHeld or the error of ctx.
func Wait(ctx context.Context, f *os.File, pause, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		err := Try(f)
		if !errors.Is(err, ErrHeld) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Block locks f exclusively, however long that takes.
func Block(f *os.File) error { return flock(f, unix.LOCK_EX) }

// Held reports whether another process holds the lock of the file at path. It
// asks for a shared lock, so that two checks at the same time do not take each
// other for a holder. The error is fs.ErrNotExist if there is no such file.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer Release(f)
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, ErrHeld) {
		return true, nil
	}
	return false, err
}

// Release unlocks f for all processes that have a copy of it, and closes it.
// Of a file that is locked elsewhere it only closes this copy.
func Release(f *os.File) error {
	_ = flock(f, unix.LOCK_UN)
	return f.Close()
}

func flock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrHeld
		default:
			return err
		}
	}
}
