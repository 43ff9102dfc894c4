package sqlite

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A child process that is being started holds every open file for a moment, and
// with it a lock that is only closed instead of released.
func TestBorrowLock_beside_new_processes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			_ = exec.Command("true").Run()
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		unlock, err := borrowLock(path)
		if err != nil {
			t.Error(err)
			<-done
			return
		}
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}
}
