package secret

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
)

// Rotate replaces the server's own key at path with a generated one. The old one is kept at former,
// from where the next start reads it to seal stored values again. Whenever the process ends, the key
// that sealed the stored values is in one of the files. It returns Conflict while former exists:
// values may still be sealed with it.
func Rotate(path, former string) (Key, error) {
	refuse := func(err error) (Key, error) {
		return Key{}, agented.Errorf(agented.Invalid, "the secret key cannot be replaced in %s (%v); nothing was changed", filepath.Dir(path), cause(err))
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return refuse(err)
	}
	defer filelock.Release(folder)
	if err := filelock.Block(folder); err != nil {
		return refuse(err)
	}
	if _, err := os.Lstat(former); err == nil {
		return Key{}, agented.Errorf(agented.Conflict, "the last rotation is not complete: start the server, which seals the stored values with the new key and removes %s", former)
	}
	old, err := readKey(path, "", true)
	if err != nil {
		return Key{}, err
	}
	random := make([]byte, generatedBytes)
	rand.Read(random) // never fails: crypto/rand ends the process instead
	for _, file := range []struct{ path, text string }{{former, old.Reveal()}, {path, hex.EncodeToString(random)}} {
		temp, err := writeTemp(file.path, []byte(file.text+"\n"))
		if err != nil {
			return refuse(err)
		}
		if err := errors.Join(os.Rename(temp, file.path), disk.SyncDir(filepath.Dir(path))); err != nil {
			os.Remove(temp)
			return refuse(err)
		}
	}
	return readKey(path, "", true)
}

// LoadFormer reads the key before the rotation from value, the setting SECRET_KEY_PREVIOUS, or from
// path. It reports whether there is one.
func LoadFormer(value, path string) (Key, bool, error) {
	if value != "" {
		return newKey(value, "SECRET_KEY_PREVIOUS"), true, nil
	}
	k, err := readKey(path, "", true)
	if errors.Is(err, agented.NotFound) {
		return Key{}, false, nil
	}
	return k, err == nil, err
}

// RemoveFormer removes the key before the rotation.
func RemoveFormer(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}
