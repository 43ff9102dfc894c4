package searchpath_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/searchpath"
)

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	want := file("b/good", 0o700)
	file("a/plain", 0o600)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "a", "good"), 0o700), os.Mkdir(filepath.Join(dir, "a", "folder"), 0o700), os.Symlink("nowhere", filepath.Join(dir, "b", "link"))); err != nil {
		t.Fatal(err)
	}
	path := strings.Join([]string{"relative", "", dir + "/missing", dir + "/a", dir + "/b"}, ":")
	if got, err := searchpath.Find("good", path); got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for program, text := range map[string]string{"plain": "is not executable", "link": "broken link", "other": "not found", "folder": "not found", "": "not found"} {
		if got, err := searchpath.Find(program, path); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %q, %v", program, got, err)
		}
	}
	t.Run("relative folder", func(t *testing.T) {
		t.Parallel()
		if got, err := searchpath.Find("sh", "bin:."); !errors.Is(err, searchpath.ErrNotFound) {
			t.Errorf("%q, %v", got, err)
		}
	})
}
