package secret

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// noLinks simulates a file system without hard links.
func noLinks(oldname, newname string) error {
	return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: unix.EPERM}
}

func TestCreate_without_links(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".secret_key")
	var wg sync.WaitGroup
	keys := make([]string, 16)
	for i := range keys {
		wg.Go(func() {
			if err := create(path, noLinks); err != nil {
				t.Error(err)
				return
			}
			key, err := readKey(path, "", true)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = key.Reveal()
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key != keys[0] || key == "" {
			t.Fatal("two servers have different keys")
		}
	}
	if left, _ := filepath.Glob(path + ".new-*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCreate_link_errors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".secret_key")
	err := create(path, func(string, string) error { return unix.EIO })
	if err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a key was written all the same")
	}
}
