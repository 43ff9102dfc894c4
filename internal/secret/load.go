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

	"github.com/agented/agented"
	"golang.org/x/sys/unix"
)

const (
	generatedBytes = 32      // of a key that the server makes itself; twice as many hexadecimal digits
	minOwnLength   = 32      // the server's own file with less is taken for damaged
	maxFileLength  = 4 << 10 // more than any key: a wrong path
)

// Options say where the key may come from, in the order in which the places are
// asked.
type Options struct {
	// Value is SECRET_KEY, used as it is unless empty.
	Value string
	// ValueSource says where Value was set. Empty means "environment".
	ValueSource string
	// File is SECRET_KEY_FILE: a file that somebody else provides. It is read
	// unless empty, and never written.
	File string
	// Path is the server's own key file, <data>/.secret_key. It is made if
	// nothing is there.
	Path string
	// ReadOnly keeps Load from making a key: NotFound takes its place. For
	// commands that only look.
	ReadOnly bool
}

// Load finds the server's key, and makes one when there is none at all. A key
// file that is there but cannot be used is an error that says what to do, never a
// reason to make another: everything sealed with the lost key would be lost too.
//
// Servers that start at the same moment agree on one key.
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
	// What lies there counts, not what this process offered: another server may
	// have been first.
	return readKey(o.Path, "", true)
}

// readKey reads a key file. own marks the server's own one, whose mode is the
// server's business; a provided file has the mode that the container runtime
// gave it.
func readKey(path, name string, own bool) (Key, error) {
	what := path
	mend := "restore it from a backup (sealed credentials and sessions depend on it), " +
		"or, if nothing worth keeping was sealed with it, delete it and a new key is made at the next start"
	if !own {
		what = name + " " + path
		mend = "make it hold the key, one line of at least 16 characters"
	}
	refuse := func(format string, args ...any) (Key, error) {
		return Key{}, agented.Errorf(agented.Invalid, "%s %s; %s", what, fmt.Sprintf(format, args...), mend)
	}

	// The name first, then what is behind it: another server may put the key there
	// at any moment, and the other order would see a name with nothing behind it.
	_, nameErr := os.Lstat(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if nameErr == nil {
			return refuse("is a link to nothing")
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
			"%s can be read or changed by other users (mode %04o); run `chmod 600 %s`, and if somebody else may have read it, replace the key",
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

// fault says what is wrong with the content of a key file, or nothing.
func fault(data []byte, own bool) string {
	text, least := trimEnd(data), MinLength
	if own {
		least = minOwnLength
	}
	switch {
	case len(data) > maxFileLength:
		return "is too long to be a key"
	case strings.TrimSpace(text) == "":
		return "is empty"
	case bytes.IndexByte(data, 0) >= 0:
		return "holds NUL bytes, as a file does after a power cut"
	case !utf8.ValidString(text):
		return "does not hold text"
	case strings.ContainsAny(text, "\r\n"):
		return "holds more than one line"
	case strings.TrimSpace(text) != text:
		return "begins or ends with a space"
	case len(text) < least:
		return fmt.Sprintf("holds only %d characters, at least %d are needed", len(text), least)
	case own && len(text) < 2*generatedBytes && strings.Trim(text, "0123456789abcdef") == "":
		// A key of the server's own making that lost its end would pass for
		// another key, and nothing sealed could be opened any more.
		return fmt.Sprintf("holds %d of the %d digits of a generated key", len(text), 2*generatedBytes)
	}
	return ""
}

// trimEnd drops one line end, which editors and echo add.
func trimEnd(data []byte) string {
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
}

// create makes a new key and puts it at path, unless something is there by then.
// The file appears complete or not at all: it is written and synced under another
// name and then linked, because link, unlike rename, replaces nothing.
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
		// A file system without hard links, as some mounts have.
		if err := renameUnderLock(temp, path); err != nil {
			return refuse(err)
		}
	default:
		return refuse(err)
	}
	// Also for the server that came second: it is about to rely on the name.
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return refuse(err)
	}
	return nil
}

// renameUnderLock moves temp to path if nothing is there, with the folder locked
// against other servers that do the same.
func renameUnderLock(temp, path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close() // also unlocks
	for {
		if err = unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("neither links nor locks work here: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return os.Rename(temp, path)
}

// WritePrivate writes data to path with mode 0600 whatever the umask, replacing
// what is there. A reader, or a crash, sees the old content or the new one. It is
// how the server leaves keys and links for people on this machine.
func WritePrivate(path string, data []byte) error {
	temp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// writeTemp writes data to a new file beside path, mode 0600, and syncs it.
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
	// The umask can only take bits away, but then the server could not read its
	// own file at the next start.
	if err := file.Chmod(0o600); err != nil {
		return "", err
	}
	if _, err := file.Write(data); err != nil {
		return "", err
	}
	return file.Name(), file.Sync()
}

// syncFolder makes names in the folder survive a power cut.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	// Some file systems do not sync folders and say EINVAL; there is nothing
	// better to do on them.
	if err := folder.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// cause takes the path out of an error whose sentence names it already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
