package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// Source describes the server to back up.
type Source struct {
	Layout agented.Layout
	DBPath string
	// Key is SECRET_KEY, and KeyID names it. If Key or Passphrase is empty, the key is left out.
	Key, KeyID string
	Passphrase []byte
	Program    string // version of this program
	MinFree    int64  // disk space in bytes that the backup leaves free
}

// Progress receives the progress of a backup or a restore, in bytes of stored data.
type Progress func(done int64, what string)

// Create writes a backup to the new file at target. A server may be running and is not
// interrupted: the backup contains everything that it had acknowledged before the call. The file
// appears once it is complete and on disk.
func Create(ctx context.Context, src Source, target string, progress Progress) (_ Report, err error) {
	began := time.Now()
	target, err = filepath.Abs(target)
	if err != nil {
		return Report{}, err
	}
	if _, err := os.Lstat(target); err == nil {
		return Report{}, agented.Errorf(agented.Conflict, "%s already exists: choose another name, or move it away", target)
	}
	lock, err := Lock(src.Layout)
	if err != nil {
		return Report{}, err
	}
	defer lock.Close()
	sweepUnfinished(src.Layout)
	temp, err := newTemp(filepath.Dir(target), tempPrefix)
	if err != nil {
		return Report{}, agented.Errorf(agented.Unavailable, "the folder %s is not writable: create it, or choose another path", filepath.Dir(target)).Because(err)
	}
	dir := temp.path
	defer func() {
		temp.remove()
		sweepUnfinished(src.Layout)
	}()
	noteUnfinished(src.Layout, dir)
	w := &writer{src: src, dir: dir, progress: progress, counted: sha256.New()}
	w.report.File = target
	if err := w.write(ctx); err != nil {
		return Report{}, explain("the backup was not written", err)
	}
	// Unlike a rename, a link never replaces a file that was created meanwhile. Not every file
	// system supports links.
	made := filepath.Join(dir, "archive")
	if err := os.Link(made, target); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return Report{}, agented.Errorf(agented.Conflict, "%s was created meanwhile: choose another name", target)
		}
		if err := os.Rename(made, target); err != nil {
			return Report{}, explain("the backup was not written", err)
		}
	}
	if err := disk.SyncDir(filepath.Dir(target)); err != nil {
		return Report{}, explain("the backup was not written", err)
	}
	w.report.DurationMS = time.Since(began).Milliseconds()
	return w.report, nil
}

// Lock keeps a data folder's files from being removed while they are copied, and prevents a
// second backup at the same time. It returns Conflict while another process holds the lock.
func Lock(layout agented.Layout) (io.Closer, error) {
	path := filepath.Join(layout.Root, "backup.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, agented.Errorf(agented.Unavailable, "the data folder %s cannot be accessed: run the command as the user of the server, or set AGENTED_DATA_DIR", layout.Root).Because(err)
	}
	if err := filelock.Try(f); err != nil {
		f.Close()
		return nil, agented.Errorf(agented.Conflict, "another backup of %s is in progress: wait until it has ended", layout.Root).Because(err)
	}
	return unlocker{f}, nil
}

// unlocker is a held lock.
type unlocker struct{ f *os.File }

func (u unlocker) Close() error { return filelock.Release(u.f) }

// explain converts an error to a message.
func explain(what string, err error) error {
	if _, ok := errors.AsType[*agented.Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return agented.Errorf(agented.Unavailable, "%s: the disk is full; free disk space, or choose another path", what).Because(err)
	}
	return agented.Errorf(agented.Unavailable, "%s: %v", what, err).Because(err)
}

// writer writes one archive.
type writer struct {
	src      Source
	dir      string // temporary folder
	progress Progress
	report   Report

	file    *os.File
	counted hash.Hash // checksum of the file
	tar     *tar.Writer
	sums    *os.File // SHA256SUMS so far
	checked int64    // bytes written at the last check of the disk
}

// Write writes to the file, counts the bytes, and fails before the disk is full.
func (w *writer) Write(p []byte) (int, error) {
	if w.report.Size-w.checked >= 4<<20 || w.checked == 0 {
		w.checked = max(1, w.report.Size)
		if space, err := disk.Measure(w.dir); err == nil && space.Free < w.src.MinFree {
			return 0, agented.Errorf(agented.Unavailable, "the backup was not written: only %s are free in %s, and %s must stay free; free disk space, or choose another path",
				format.Bytes(space.Free), filepath.Dir(w.dir), format.Bytes(w.src.MinFree))
		}
	}
	n, err := w.file.Write(p)
	w.counted.Write(p[:n])
	w.report.Size += int64(n)
	return n, err
}

func (w *writer) write(ctx context.Context) (err error) {
	if w.file, err = os.OpenFile(filepath.Join(w.dir, "archive"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	defer w.file.Close()
	if w.sums, err = os.OpenFile(filepath.Join(w.dir, "sums"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	defer w.sums.Close()
	// Larger windows compress slightly better, but a reader needs as much memory.
	enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	defer enc.Close()
	w.tar = tar.NewWriter(enc)

	head := Head{Format: formatVersion, CreatedAt: time.Now().UTC().Truncate(time.Microsecond), Program: w.src.Program, Key: KeyLeftOut}
	var sealed []byte
	if w.src.Key != "" && len(w.src.Passphrase) > 0 {
		head.Key, head.KeyID = KeySealed, w.src.KeyID
		if sealed, err = seal(w.src.Key, w.src.Passphrase, head.KeyID); err != nil {
			return err
		}
	}
	w.report.Head, w.report.Key = head, head.Key
	if err := w.json(headName, head); err != nil {
		return err
	}
	if sealed != nil {
		if err := w.small(keyName, sealed); err != nil {
			return err
		}
	}
	w.reportProgress("database")
	copied := filepath.Join(w.dir, dbName)
	if st, err := os.Stat(w.src.DBPath); err == nil {
		if space, err := disk.Measure(w.dir); err == nil && space.Free-st.Size() < w.src.MinFree {
			return agented.Errorf(agented.Unavailable, "the backup was not written: %s are free in %s, and the copy of the database needs up to %s while %s must stay free; free disk space, or choose another path",
				format.Bytes(space.Free), filepath.Dir(w.dir), format.Bytes(st.Size()), format.Bytes(w.src.MinFree))
		}
	}
	if err := store.Snapshot(ctx, w.src.DBPath, copied); err != nil {
		return err
	}
	if err := w.addFile(ctx, dbName, copied); err != nil {
		return err
	}
	if err := w.logs(ctx, copied); err != nil {
		return err
	}
	if err := w.conversations(ctx, copied); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	if err := errors.Join(w.tar.Close(), enc.Close()); err != nil {
		return err
	}
	sum := w.counted.Sum(nil)
	if _, err := w.file.Write(trailer(sum)); err != nil {
		return err
	}
	w.report.Size += int64(trailerSize)
	w.report.SHA256 = hex.EncodeToString(sum)
	return errors.Join(w.file.Sync(), w.file.Close())
}

// logs adds the log of each execution in the copy of the database. The log of a running execution
// is included up to its current end.
func (w *writer) logs(ctx context.Context, copied string) error {
	db, err := store.OpenCopy(ctx, copied)
	if err != nil {
		return err
	}
	defer db.Close()
	m := &w.report.Manifest
	if m.Counts, err = db.Counts(ctx); err != nil {
		return err
	}
	err = db.Executions(ctx, func(e store.CopiedExecution) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Removed {
			return nil
		}
		if e.State == agented.StateRunning {
			w.report.Settled++
			// The exit record first: once it exists, the log is complete.
			if err := w.exit(e); err != nil {
				return err
			}
		}
		found, err := w.log(ctx, e)
		if err == nil && !found && e.HasLog() {
			m.MissingLogs++
			if len(w.report.Warnings) < 10 {
				w.report.Warnings = append(w.report.Warnings, fmt.Sprintf("the log of %s does not exist", e.ID))
			}
		}
		if err != nil {
			return err
		}
		return w.changes(ctx, e.ID)
	})
	return err
}

// exit adds the exit record of an attempt that the database records as running.
func (w *writer) exit(e store.CopiedExecution) error {
	bundle := w.src.Layout.Attempt(e.ID, e.AttemptNo)
	if _, err := shim.ReadExit(bundle); err != nil {
		return nil // still running, or its end is unknown
	}
	b, err := os.ReadFile(filepath.Join(bundle, "exit.json"))
	if err != nil || len(b) > maxSmall {
		return nil
	}
	return w.small(fmt.Sprintf("%s/%s/attempt-%d/exit.json", logsFolder, e.ID, e.AttemptNo), b)
}

func (w *writer) log(ctx context.Context, e store.CopiedExecution) (found bool, err error) {
	c, err := runlog.OpenCopy(w.src.Layout.Execution(e.ID))
	if errors.Is(err, agented.NotFound) {
		return false, nil
	}
	if err != nil {
		// The log is invalid. A backup without it is better than none.
		w.report.Warnings = append(w.report.Warnings, fmt.Sprintf("the log of %s cannot be read: %v", e.ID, err))
		return false, nil
	}
	defer c.Close()
	w.report.Manifest.Logs++
	if w.report.Manifest.Logs%64 == 0 {
		w.reportProgress(fmt.Sprintf("%d logs", w.report.Manifest.Logs))
	}
	return true, w.add(ctx, logsFolder+"/"+string(e.ID)+"/"+c.Name, c.Size, c)
}

// end adds the checksums and the manifest.
func (w *writer) end() error {
	if _, err := w.sums.Seek(0, io.SeekStart); err != nil {
		return err
	}
	st, err := w.sums.Stat()
	if err != nil {
		return err
	}
	if err := w.header(sumsName, st.Size()); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w.tar, sum), w.sums); err != nil {
		return err
	}
	w.report.Manifest.Sums = hex.EncodeToString(sum.Sum(nil))
	b, err := json.MarshalIndent(w.report.Manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := w.header(manifestName, int64(len(b))); err != nil {
		return err
	}
	_, err = w.tar.Write(b)
	return err
}

func (w *writer) header(name string, size int64) error {
	return w.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: w.report.Head.CreatedAt.Truncate(time.Second),
	})
}

func (w *writer) json(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return w.small(name, append(b, '\n'))
}

func (w *writer) small(name string, b []byte) error {
	return w.add(context.Background(), name, int64(len(b)), bytes.NewReader(b))
}

func (w *writer) addFile(ctx context.Context, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return w.add(ctx, name, st.Size(), f)
}

// add adds a file with its checksum.
func (w *writer) add(ctx context.Context, name string, size int64, from io.Reader) error {
	if err := w.header(name, size); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(w.tar, sum), &ticking{ctx.Err, io.LimitReader(from, size), func(n int) {
		if before := w.report.Manifest.Bytes >> 24; (w.report.Manifest.Bytes+int64(n))>>24 != before {
			w.reportProgress(strings.TrimPrefix(name, logsFolder+"/"))
		}
		w.report.Manifest.Bytes += int64(n)
	}}, make([]byte, 64<<10))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("%s: it had %d bytes and has %d", name, size, n)
	}
	w.report.Manifest.Files++
	_, err = io.WriteString(w.sums, sumLine(sum, name))
	return err
}

func (w *writer) reportProgress(what string) {
	if w.progress != nil {
		w.progress(w.report.Manifest.Bytes, what)
	}
}

// ticking reads until its context ends, and reports the progress.
type ticking struct {
	done func() error // the error that ends the copy
	r    io.Reader
	tick func(n int)
}

func (t *ticking) Read(p []byte) (int, error) {
	if err := t.done(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(p)
	t.tick(n)
	return n, err
}
