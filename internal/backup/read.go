package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
)

// Options configure how a backup is read.
type Options struct {
	Passphrase []byte // decrypts the key; empty leaves it encrypted
	WithoutKey bool   // do not restore the key, even if it is in the backup
	Hold       bool   // start the restored server in drain mode
	Temp       string // folder where Check unpacks files; empty means the system's temporary folder
	Progress   Progress
}

// keepFree is the disk space in bytes that reading a backup leaves free.
const keepFree = 64 << 20

// bad returns the error of a backup that is damaged.
func bad(format string, args ...any) error {
	return agented.Errorf(agented.Invalid, "the backup is damaged, or it is not a backup of Agented: %s", fmt.Sprintf(format, args...))
}

// Check verifies a backup: every checksum and count, SQLite's integrity check of the database,
// and every log from start to end. It unpacks only the database and one log at a time, and
// removes both.
func Check(ctx context.Context, file string, o Options) (Report, error) {
	temp, err := newTemp(o.Temp, checkPrefix)
	if err != nil {
		return Report{}, explain("the backup cannot be checked", err)
	}
	defer temp.remove()
	r := &reader{o: o, dir: temp.path}
	if err := r.read(ctx, file); err != nil {
		return Report{}, explain("the backup cannot be checked", err)
	}
	return r.report, nil
}

// Restore restores a backup to a data folder, after the same checks. The folder must be new or
// empty; it appears only once it is complete.
func Restore(ctx context.Context, file, to string, o Options) (Report, error) {
	to, err := filepath.Abs(to)
	if err != nil {
		return Report{}, err
	}
	if info, err := os.Lstat(to); err == nil && info.Mode()&os.ModeSymlink != 0 {
		return Report{}, agented.Errorf(agented.Conflict, "%s is a symbolic link: use its target instead; existing files are never overwritten", to)
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return Report{}, agented.Errorf(agented.Conflict, "%s is not an empty folder: use a new one; existing files are never overwritten", to)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
	temp, err := newTemp(filepath.Dir(to), restorePrefix)
	if err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
	defer temp.remove()
	r := &reader{o: o, dir: temp.path, keep: true}
	if err := r.read(ctx, file); err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
	if o.Hold {
		if err := store.HoldCopy(ctx, filepath.Join(r.dir, dbName), time.Now()); err != nil {
			return Report{}, explain("the backup cannot be restored", err)
		}
		r.report.Held = true
	}
	temp.unlock()
	if err := r.install(to); err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
	r.report.Restored = to
	return r.report, nil
}

// reader reads one archive.
type reader struct {
	o    Options
	dir  string
	keep bool // keep the logs; otherwise each is removed after its check

	report Report
	last   place
	sums   *os.File // expected checksums
	line   *bufio.Writer
	done   int64
	db     *store.Copy
	sealed []byte
	ended  map[agented.ExecutionID]bool // executions recorded as running that have an exit record
	logs   int64                        // number of required logs that were found
	tail   string                       // name of the current entry
}

func (r *reader) read(ctx context.Context, file string) error {
	began := time.Now()
	f, err := os.Open(file)
	if err != nil {
		return agented.Errorf(agented.NotFound, "%s cannot be read: give the path of a backup file", file).Because(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return agented.Errorf(agented.Invalid, "%s is not a file", file)
	}
	r.report.File, r.report.Size = file, st.Size()
	var end [trailerSize]byte
	if st.Size() <= int64(trailerSize) {
		return bad("it has only %d bytes", st.Size())
	}
	if _, err := f.ReadAt(end[:], st.Size()-int64(trailerSize)); err != nil {
		return err
	}
	sum := end[trailerSize-sha256.Size:]
	if !bytes.Equal(end[:], trailer(sum)) {
		return bad("its end is missing; it may be truncated")
	}
	r.report.SHA256 = hex.EncodeToString(sum)
	all := sha256.New()
	body := io.TeeReader(&ticking{ctx.Err, io.LimitReader(f, st.Size()-int64(trailerSize)), func(int) {}}, all)
	if err := r.unpack(ctx, body); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if !bytes.Equal(all.Sum(nil), sum) {
		return bad("its checksum does not match")
	}
	r.report.DurationMS = time.Since(began).Milliseconds()
	return nil
}

// unpack reads the compressed archive.
func (r *reader) unpack(ctx context.Context, body io.Reader) (err error) {
	dec, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return bad("%v", err)
	}
	defer dec.Close()
	if r.sums, err = os.OpenFile(filepath.Join(r.dir, ".sums"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	r.line = bufio.NewWriter(r.sums)
	defer func() {
		r.sums.Close()
		os.Remove(r.sums.Name())
		if r.db != nil {
			err = errors.Join(err, r.db.Close())
		}
	}()
	r.last = place{stage: -1}
	r.ended = map[agented.ExecutionID]bool{}
	t := tar.NewReader(dec)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r.broken(ctx, err)
		}
		if err := r.entry(ctx, h, t); err != nil {
			return err
		}
	}
	if r.last.stage != stageManifest {
		return bad("it ends before its manifest")
	}
	// Only padding may follow the archive.
	rest := make([]byte, 32<<10)
	for total := 0; ; {
		n, err := dec.Read(rest)
		if total += n; len(bytes.Trim(rest[:n], "\x00")) > 0 || total > 1<<20 {
			return bad("there is data after its manifest")
		}
		if errors.Is(err, io.EOF) {
			return r.whole(ctx)
		}
		if err != nil {
			return r.broken(ctx, err)
		}
	}
}

// broken returns the error for a failure to read the archive.
func (r *reader) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.tail != "" {
		return bad("in %s: %v", r.tail, err)
	}
	return bad("%v", err)
}

// entry reads one entry, and verifies its name and its position.
func (r *reader) entry(ctx context.Context, h *tar.Header, t io.Reader) error {
	r.tail = printable(h.Name)
	p, ok := placeOf(h.Name)
	switch {
	case !ok:
		return bad("it contains the entry %q, which no backup can contain", r.tail)
	case h.Typeflag != tar.TypeReg || h.Size < 0 || len(h.PAXRecords) > 8:
		return bad("%s is not a regular file", r.tail)
	case !r.last.before(p):
		return bad("%s is out of order or duplicated", r.tail)
	case p.stage > 0 && r.last.stage < 0, p.stage > 2 && r.last.stage < 2, p.stage == stageManifest && r.last.stage != stageSums:
		return bad("an entry is missing before %s", r.tail)
	}
	r.last = p
	sum := sha256.New()
	switch p.stage {
	case 0, 1, stageManifest:
		b, err := r.small(ctx, h, t, sum)
		if err != nil {
			return err
		}
		if err := r.meta(p.stage, b); err != nil {
			return err
		}
	case 2:
		path := filepath.Join(r.dir, dbName)
		if err := r.file(ctx, h, t, sum, path); err != nil {
			return err
		}
		if err := r.openDB(ctx, path); err != nil {
			return err
		}
	case 3:
		if err := r.execution(ctx, p, h, t, sum); err != nil {
			return err
		}
	case stageConversations:
		if err := r.conversation(ctx, p, h, t, sum); err != nil {
			return err
		}
	case stageSums:
		return r.compareSums(ctx, h, t)
	}
	if p.stage == stageManifest {
		return nil
	}
	r.report.Manifest.Files++
	r.report.Manifest.Bytes += h.Size
	_, err := r.line.WriteString(sumLine(sum, h.Name))
	return err
}

func (r *reader) small(ctx context.Context, h *tar.Header, t io.Reader, sum hash.Hash) ([]byte, error) {
	if h.Size > maxSmall {
		return nil, bad("%s is too long", r.tail)
	}
	b, err := io.ReadAll(io.TeeReader(t, sum))
	if err != nil {
		return nil, r.broken(ctx, err)
	}
	return b, nil
}

func (r *reader) meta(stage int, b []byte) error {
	switch stage {
	case 0:
		if err := json.Unmarshal(b, &r.report.Head); err != nil {
			return bad("%s cannot be read", headName)
		}
		if v := r.report.Head.Format; v < 1 || v > formatVersion {
			return agented.Errorf(agented.Invalid, "the backup has format %d, and this program supports formats up to %d: use the version that wrote it (%s)", v, formatVersion, printable(r.report.Head.Program))
		}
	case 1:
		if r.report.Head.Key != KeySealed {
			return bad("it contains a key, but its head names none")
		}
		r.sealed = b
	case stageManifest:
		var m Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return bad("%s cannot be read", manifestName)
		}
		have := r.report.Manifest
		if m.Files != have.Files || m.Bytes != have.Bytes || m.Logs != have.Logs || m.Conversations != have.Conversations || m.Changes != have.Changes || m.Sums != have.Sums || m.Counts != have.Counts {
			return bad("its manifest lists %+v, but it contains %+v", m, have)
		}
		r.report.Manifest = m
	}
	return nil
}

// file writes an entry to a file, as long as the disk has enough space.
func (r *reader) file(ctx context.Context, h *tar.Header, t io.Reader, sum hash.Hash, path string) error {
	space, err := disk.Measure(r.dir)
	if err != nil {
		return err
	}
	if space.Free-h.Size < keepFree || space.Files >= 0 && space.Files < 100 {
		return agented.Errorf(agented.Unavailable, "%s needs %s, and %s are free in %s: free disk space, or choose another folder", r.tail, format.Bytes(h.Size), format.Bytes(space.Free), filepath.Dir(r.dir))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(io.MultiWriter(onlyWriter{f}, sum), &ticking{ctx.Err, t, func(n int) {
		if before := r.done >> 24; (r.done+int64(n))>>24 != before && r.o.Progress != nil {
			r.o.Progress(r.done, r.tail)
		}
		r.done += int64(n)
	}}, make([]byte, 64<<10))
	var path2 *os.PathError
	switch {
	case errors.As(err, &path2), ctx.Err() != nil:
		return errors.Join(err, ctx.Err())
	case err != nil:
		return r.broken(ctx, err)
	}
	return f.Close()
}

// onlyWriter hides the other methods of a file, so that a copy uses the buffer.
type onlyWriter struct{ io.Writer }

func (r *reader) openDB(ctx context.Context, path string) error {
	var err error
	if r.db, err = store.OpenCopy(ctx, path); err != nil {
		return err
	}
	damage, err := r.db.Damage(ctx)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return bad("its database: %s", damage[0])
	}
	r.report.Manifest.Counts, err = r.db.Counts(ctx)
	return err
}

// execution reads the log of an execution, or the exit record of its last attempt.
func (r *reader) execution(ctx context.Context, p place, h *tar.Header, t io.Reader, sum hash.Hash) error {
	e, err := r.db.Execution(ctx, p.execution)
	if err != nil {
		return bad("%s belongs to an execution that is not in its database", r.tail)
	}
	if p.rest != "" {
		return r.changes(ctx, h, t, sum)
	}
	if p.attempt > 0 && (e.State != agented.StateRunning || p.attempt != e.AttemptNo) {
		return bad("%s belongs to an attempt that has ended", r.tail)
	}
	if p.attempt > 0 && h.Size > maxSmall {
		return bad("%s is too long", r.tail)
	}
	path := filepath.Join(r.dir, filepath.FromSlash(h.Name))
	if err := r.file(ctx, h, t, sum, path); err != nil {
		return err
	}
	if p.attempt > 0 {
		r.ended[p.execution] = true
		return nil
	}
	dir := filepath.Dir(path)
	last, lines, err := runlog.Verify(dir)
	if err != nil {
		return bad("%s: %v", r.tail, err)
	}
	if e.HasLog() {
		if last < e.LastSeq {
			return bad("%s ends at line %d, but its database records %d", r.tail, last, e.LastSeq)
		}
		r.logs++
	}
	r.report.Lines += lines
	r.report.Manifest.Logs++
	if r.o.Progress != nil && r.report.Manifest.Logs%64 == 0 {
		r.o.Progress(r.done, fmt.Sprintf("%d logs", r.report.Manifest.Logs))
	}
	if r.keep {
		return nil
	}
	return os.RemoveAll(dir)
}

// compareSums reads SHA256SUMS and names the first file with another checksum.
func (r *reader) compareSums(ctx context.Context, h *tar.Header, t io.Reader) error {
	if err := r.line.Flush(); err != nil {
		return err
	}
	if _, err := r.sums.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	want, have := bufio.NewReader(io.TeeReader(t, sum)), bufio.NewReader(r.sums)
	for {
		a, errA := want.ReadSlice('\n')
		b, errB := have.ReadSlice('\n')
		switch {
		case errA != nil && !errors.Is(errA, io.EOF):
			return r.broken(ctx, errA)
		case !bytes.Equal(a, b):
			return bad("its checksums list %q, but it contains %q", printable(string(a)), printable(string(b)))
		case errA != nil && errB != nil:
			r.report.Manifest.Sums = hex.EncodeToString(sum.Sum(nil))
			return nil
		}
	}
}

// whole performs the checks that need the whole backup.
func (r *reader) whole(ctx context.Context) error {
	expected, err := r.db.Expected(ctx)
	if err != nil {
		return bad("its database: %v", err)
	}
	if m := r.report.Manifest; r.logs+m.MissingLogs != expected {
		return bad("its database lists %d logs, but it contains %d", expected, r.logs)
	}
	if n := r.report.Manifest.MissingLogs; n > 0 {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("%d logs were already missing when the backup was taken", n))
	}
	if err := r.key(); err != nil {
		return err
	}
	return r.db.Executions(ctx, func(e store.CopiedExecution) error {
		if e.State != agented.StateRunning {
			return nil
		}
		if !agented.ValidID("exec", string(e.ID)) {
			return bad("its database contains an invalid execution id %q", printable(string(e.ID)))
		}
		r.report.Settled++
		if r.ended[e.ID] || !r.keep {
			return nil
		}
		return r.settle(e)
	})
}
