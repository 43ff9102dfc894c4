package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestBackup_changes(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	names := []string{"1/artifacts/0", "1/artifacts/10", "1/artifacts/2", "1/patch.zst", "1/record.zst", "10/record.zst", "2/record.zst"}
	left := []string{"1/other", "3.new/record.zst", "start/config", "start/objects/ab/cd"}
	write := func(name string) {
		path := filepath.Join(f.Execution(f.ended), "changes", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append(left, names...) {
		write(name)
	}
	file := f.backup(t)
	checked, err := Check(t.Context(), file, Options{Passphrase: []byte(testPassphrase), Temp: t.TempDir()})
	if err != nil || checked.Manifest.Changes != int64(len(names)) {
		t.Fatalf("%+v, %v", checked.Manifest, err)
	}
	to := agented.Layout{Root: filepath.Join(t.TempDir(), "data")}
	if _, err := Restore(t.Context(), file, to.Root, Options{Passphrase: []byte(testPassphrase)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(to.Execution(f.ended), "changes", name))
		if err != nil || string(b) != "content of "+name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(to.Execution(f.ended), "changes", name)); err == nil {
			t.Errorf("%s was restored", name)
		}
	}
}

func TestPlace_changes(t *testing.T) {
	t.Parallel()
	id := agented.NewID("exec", time.Now())
	for name, ok := range map[string]bool{
		"changes/1/record.zst": true, "changes/1/artifacts/0": true, "changes/0/record.zst": false, "changes/1/../record.zst": false,
		"changes/1/artifacts/01": false, "changes/1/artifacts/x": false, "changes/start/config": false, "changes/1/record.zst/x": false,
	} {
		if _, got := placeOf(fmt.Sprintf("executions/%s/%s", id, name)); got != ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}
