package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// lostDetail is how an execution ended that a backup has as running.
const lostDetail = "the backup that this was restored from was taken while it ran"

// settle writes down that an execution which ran when the backup was taken does
// not run here: the next server reads that like any other end. Without it the
// server would take the attempt for one that was never started, and start it.
func (r *reader) settle(e store.CopiedExecution) error {
	l := agented.Layout{Root: r.dir}
	dir := l.Execution(e.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	at := r.report.Head.CreatedAt
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	log, err := runlog.OpenWriter(dir, at)
	switch {
	case errors.Is(err, agented.Conflict), err != nil && exists(filepath.Join(dir, "log.zst")):
		return shim.RecordLost(l.Attempt(e.ID, e.AttemptNo), agented.Exit{Detail: lostDetail, LastSeq: e.LastSeq, StartedAt: at, FinishedAt: at})
	case err != nil:
		return err
	}
	err = log.AppendSystem(e.AttemptNo, time.Now().UTC(), "Interrupted: %s.", lostDetail)
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	return shim.RecordLost(l.Attempt(e.ID, e.AttemptNo), agented.Exit{Detail: lostDetail, LastSeq: log.LastSeq(), StartedAt: at, FinishedAt: at})
}

// minOwnKey is the length from which a server takes the key of its own file.
const minOwnKey = 32

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// key opens the sealed key, or says why it stays shut.
func (r *reader) key() error {
	switch {
	case r.report.Head.Key != KeySealed:
		r.report.Key = "is not in the backup: the restored server needs the SECRET_KEY of before, else everybody logs in anew and sealed secrets have to be entered again"
	case r.sealed == nil:
		return bad("it says that it has a key, and has none")
	case len(r.o.Passphrase) > 0:
		key, err := open(r.sealed, r.o.Passphrase, r.report.Head.KeyID)
		if err != nil {
			return err
		}
		r.report.Key = "the passphrase opens it"
		if r.keep && !r.o.WithoutKey {
			name := filepath.Base(agented.Layout{}.SecretKey())
			r.report.Key = "restored to " + name + "; a SECRET_KEY in the settings counts more"
			if len(key) < minOwnKey {
				name = "secret_key.restored"
				r.report.Key = "restored to " + name + ": it was set by hand and is short, so set SECRET_KEY or SECRET_KEY_FILE to it again"
			}
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(key+"\n"), 0o600); err != nil {
				return err
			}
		}
	case r.keep && !r.o.WithoutKey:
		return agented.Errorf(agented.Invalid, "the backup holds the SECRET_KEY under a passphrase: give --passphrase-file, or --without-key to set SECRET_KEY yourself")
	default:
		r.report.Key = "is in the backup; without the passphrase it was not opened"
	}
	return nil
}

// install gives the folder its name once all of it is on the disk.
func (r *reader) install(to string) error {
	if err := os.Chmod(r.dir, 0o700); err != nil {
		return err
	}
	unix.Sync() // one call for what may be a hundred thousand files
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return agented.Errorf(agented.Conflict, "%s cannot be replaced (it may be a mount point): name a new folder below it", to).Because(err)
	}
	if err := os.Rename(r.dir, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// printable is a name out of a file for people to read.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '?'
	}, s)
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
