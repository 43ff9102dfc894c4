package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented/internal/disk"
)

func TestReplaceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, want := range []string{"old", "new and longer", ""} {
		if err := disk.ReplaceFile(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files are in the folder, %v", len(entries), err)
	}
}

func TestReplaceFile_error_leaves_no_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if disk.ReplaceFile(path, nil, 0o600) == nil {
		t.Error("a folder was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files are in the folder, %v", len(entries), err)
	}
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	s, err := disk.Measure(t.TempDir())
	if err != nil || s.Free <= 0 || s.Total < s.Free {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := disk.Measure(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing path has space")
	}
}
