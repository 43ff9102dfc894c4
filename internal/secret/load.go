package secret

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
)

const (
	generatedBytes = 32      // length in bytes of a generated key, which is stored as hexadecimal digits
	minOwnLength   = 32      // the server's own file is considered damaged if it is shorter
	maxFileLength  = 4 << 10 // longer than any key: the path is wrong
)

// Options are the sources of the key, in order of precedence.
type Options struct {
	// Value is SECRET_KEY, used unchanged unless empty.
	Value string
	// ValueSource is where Value was set. Empty means "environment".
	ValueSource string
	// File is SECRET_KEY_FILE, a file provided by the user. It is read unless
	// empty, and never written.
	File string
	// Path is the server's own key file, <data>/.secret_key. It is created if
	// it does not exist.
	Path string
	// ReadOnly makes Load return NotFound instead of generating a key, for
	// commands that only read.
	ReadOnly bool
}

// Load returns the server's key, and generates one if there is none. A key file
// that exists but cannot be used is an error with the fix, never a reason to
// generate another key: everything sealed with the lost key would be lost too.
//
// Servers that start at the same time agree on one key.
func Load(o Options) (Key, error) {
	if o.Value != "" {
		source := o.ValueSource
		if source == "" {
			source = "environment"
		}
		return newKey(o.Value, source), nil
	}
	if o.File != "" {
		return readKey(o.File, "SECRET_KEY_FILE", false)
	}
	key, err := readKey(o.Path, "", true)
	if !errors.Is(err, agented.NotFound) || o.ReadOnly {
		return key, err
	}
	if err := create(o.Path, os.Link); err != nil {
		return Key{}, err
	}
	// Read the stored key, since another server may have created it first.
	return readKey(o.Path, "", true)
}

// readKey reads a key file. own marks the server's own file, whose mode the
// server checks; a provided file has the mode set by the container runtime.
func readKey(path, name string, own bool) (Key, error) {
	what := path
	mend := "restore it from a backup (sealed credentials and sessions depend on it), " +
		"or, if nothing important was sealed with it, delete it and a new key is generated at the next start"
	if !own {
		what = name + " " + path
		mend = "write the key into it, one line of at least 16 characters"
	}
	refuse := func(format string, args ...any) (Key, error) {
		return Key{}, agented.Errorf(agented.Invalid, "%s %s; %s", what, fmt.Sprintf(format, args...), mend)
	}

	// Check the name before its target: another server may create the key at
	// any moment, and in the other order the link would seem to be broken.
	_, nameErr := os.Lstat(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if nameErr == nil {
			return refuse("is a broken symbolic link")
		}
		if !own {
			return refuse("does not exist")
		}
		return Key{}, agented.Errorf(agented.NotFound, "%s does not exist", path)
	case err != nil:
		return Key{}, agented.Errorf(agented.Invalid, "%s cannot be read (%v); make it readable for the user that runs the server", what, cause(err))
	case info.IsDir():
		return refuse("is a folder, not a file")
	case !info.Mode().IsRegular():
		return refuse("is not a regular file")
	case own && info.Mode().Perm()&0o077 != 0:
		return Key{}, agented.Errorf(agented.Invalid,
			"%s can be read or changed by other users (mode %04o); run `chmod 600 %s`, and if another user may have read it, replace the key",
			what, info.Mode().Perm(), path)
	case info.Mode().Perm()&0o002 != 0:
		return Key{}, agented.Errorf(agented.Invalid, "%s can be changed by every user (mode %04o); run `chmod o-w %s`",
			what, info.Mode().Perm(), path)
	}

	file, err := os.Open(path)
	if err != nil {
		return Key{}, agented.Errorf(agented.Invalid, "%s cannot be read (%v); make it readable for the user that runs the server", what, cause(err))
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileLength+1))
	if err != nil {
		return Key{}, agented.Errorf(agented.Invalid, "%s cannot be read (%v); check the disk", what, cause(err))
	}
	if fault := fault(data, own); fault != "" {
		return refuse("%s", fault)
	}
	return newKey(trimEnd(data), path), nil
}

// fault returns what is wrong with the content of a key file, or "".
func fault(data []byte, own bool) string {
	text, least := trimEnd(data), MinLength
	placeholder := ""
	if !own {
		placeholder = agented.PlaceholderFault(text)
	}
	if own {
		least = minOwnLength
	}
	switch {
	case len(data) > maxFileLength:
		return "is too long to be a key"
	case strings.TrimSpace(text) == "":
		return "is empty"
	case !own && (bytes.HasPrefix(data, []byte("\xFF\xFE")) || bytes.HasPrefix(data, []byte("\xFE\xFF"))):
		return "is UTF-16, not UTF-8"
	case placeholder != "":
		return placeholder
	case bytes.IndexByte(data, 0) >= 0:
		return "contains NUL bytes, as a file can after a power failure"
	case !utf8.ValidString(text):
		return "does not contain text"
	case strings.ContainsAny(text, "\r\n"):
		return "contains more than one line"
	case strings.TrimSpace(text) != text:
		return "begins or ends with a space"
	case len(text) < least:
		return fmt.Sprintf("contains only %d characters, at least %d are required", len(text), least)
	case own && len(text) < 2*generatedBytes && strings.Trim(text, "0123456789abcdef") == "":
		// A truncated generated key would look like another key, and nothing
		// sealed could be decrypted any more.
		return fmt.Sprintf("contains %d of the %d digits of a generated key", len(text), 2*generatedBytes)
	}
	return ""
}

// trimEnd removes one line break and a byte order mark, which editors and echo
// add.
func trimEnd(data []byte) string {
	return strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), "\uFEFF")
}

// create generates a key and writes it to path, unless the file exists by then.
// The file appears completely or not at all: it is written and synced under
// another name and then linked, because link, unlike rename, does not replace a
// file.
func create(path string, link func(oldname, newname string) error) error {
	refuse := func(err error) error {
		return agented.Errorf(agented.Invalid,
			"the secret key cannot be written to %s (%v); make the folder writable for the user that runs the server, or set AGENTED_DATA_DIR or SECRET_KEY",
			path, cause(err))
	}
	random := make([]byte, generatedBytes)
	rand.Read(random) // never fails: crypto/rand ends the process instead
	temp, err := writeTemp(path, []byte(hex.EncodeToString(random)+"\n"))
	if err != nil {
		return refuse(err)
	}
	defer os.Remove(temp)

	err = link(temp, path)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EMLINK):
		// Some mounted file systems have no hard links.
		if err := renameUnderLock(temp, path); err != nil {
			return refuse(err)
		}
	default:
		return refuse(err)
	}
	// Also if another server created the file: this one relies on the name too.
	if err := disk.SyncDir(filepath.Dir(path)); err != nil {
		return refuse(err)
	}
	return nil
}

// renameUnderLock moves temp to path if path does not exist, with the folder
// locked against other servers.
func renameUnderLock(temp, path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer filelock.Release(folder)
	if err := filelock.Block(folder); err != nil {
		return fmt.Errorf("the file system supports neither links nor locks: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return os.Rename(temp, path)
}

// writeTemp writes data to a new file next to path with mode 0600, and syncs
// it.
func writeTemp(path string, data []byte) (name string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	// The umask may have removed bits that the server needs to read its own
	// file at the next start.
	if err := file.Chmod(0o600); err != nil {
		return "", err
	}
	if _, err := file.Write(data); err != nil {
		return "", err
	}
	return file.Name(), file.Sync()
}

// cause removes the path from an error if the message already contains it.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
