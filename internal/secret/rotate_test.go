package secret

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented"
)

func TestRotate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".secret_key")
	former := path + ".previous"
	if _, err := Rotate(path, former); !errors.Is(err, agented.NotFound) {
		t.Errorf("without a key: %v", err)
	}
	old, err := Load(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	now, err := Rotate(path, former)
	if err != nil || now.ID() == old.ID() {
		t.Fatalf("%v, %v", now, err)
	}
	for p, want := range map[string]Key{path: now, former: old} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
		if got, err := readKey(p, "", true); err != nil || got.Reveal() != want.Reveal() {
			t.Errorf("%s: %v, %v", p, got, err)
		}
	}
	// The former key would be lost.
	if _, err := Rotate(path, former); !errors.Is(err, agented.Conflict) {
		t.Errorf("a second time: %v", err)
	}
	if got, ok, err := LoadFormer("", former); err != nil || !ok || got.Reveal() != old.Reveal() {
		t.Errorf("former key: %v, %v, %v", got, ok, err)
	}
	if got, ok, err := LoadFormer("a-key-that-is-set", former); err != nil || !ok || got.Reveal() != "a-key-that-is-set" {
		t.Errorf("former key of the setting: %v, %v, %v", got, ok, err)
	}
	if err := errors.Join(RemoveFormer(former), RemoveFormer(former)); err != nil {
		t.Error(err)
	}
	if _, ok, err := LoadFormer("", former); err != nil || ok {
		t.Errorf("afterwards: %v, %v", ok, err)
	}
}
