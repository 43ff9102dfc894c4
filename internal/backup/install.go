package backup

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// lostDetail is the end of an execution that was running at the time of the backup.
const lostDetail = "it was running when the backup was taken from which it was restored"

// settle records that an execution which was running at the time of the backup has ended. Without
// this record the server would treat the attempt as never started, and start it.
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

// minOwnKey is the minimum length of the key in the server's key file.
const minOwnKey = 32

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// key decrypts the sealed key, or reports why it cannot.
func (r *reader) key() error {
	switch {
	case r.report.Head.Key != KeySealed:
		r.report.Key = "is not in the backup: the restored server needs the original SECRET_KEY, otherwise all users must log in again and secrets must be entered again"
	case r.sealed == nil:
		return bad("its head names a key, but it contains none")
	case len(r.o.Passphrase) > 0:
		key, err := open(r.sealed, r.o.Passphrase, r.report.Head.KeyID)
		if err != nil {
			return err
		}
		r.report.Key = "the passphrase decrypts it"
		if r.keep && !r.o.WithoutKey {
			name := filepath.Base(agented.Layout{}.SecretKey())
			r.report.Key = "restored to " + name + "; a SECRET_KEY in the settings takes precedence"
			if len(key) < minOwnKey {
				name = "secret_key.restored"
				r.report.Key = "restored to " + name + ": it was set manually and is short, so set SECRET_KEY or SECRET_KEY_FILE to it again"
			}
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(key+"\n"), 0o600); err != nil {
				return err
			}
		}
	case r.keep && !r.o.WithoutKey:
		return agented.Errorf(agented.Invalid, "the backup contains SECRET_KEY, encrypted with a passphrase: use --passphrase-file, or --without-key to set SECRET_KEY yourself")
	default:
		r.report.Key = "is in the backup; it was not decrypted, because no passphrase was given"
	}
	return nil
}

// install renames the folder once all of it is on disk.
func (r *reader) install(to string) error {
	if err := os.Chmod(r.dir, 0o700); err != nil {
		return err
	}
	unix.Sync() // one call for possibly a hundred thousand files
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return agented.Errorf(agented.Conflict, "%s cannot be replaced (it may be a mount point): use a new folder below it", to).Because(err)
	}
	if err := os.Rename(r.dir, to); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(to))
}

// printable makes a name from a file safe for display.
func printable(s string) string {
	return format.Clip(format.Printable(s, '?'), 200)
}
