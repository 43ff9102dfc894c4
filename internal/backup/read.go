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
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
)

// Options say how a backup is read.
type Options struct {
	Passphrase []byte // opens the key; empty: it is left as it is
	WithoutKey bool   // restore without the key although it is in
	Temp       string // where Check unpacks what it looks at; empty is the system's place
	Progress   Progress
}

// keepFree is what reading a backup leaves free on a disk.
const keepFree = 64 << 20

// bad is a backup that cannot be trusted.
func bad(format string, args ...any) error {
	return agented.Errorf(agented.Invalid, "the backup is damaged or not one of Agented: %s", fmt.Sprintf(format, args...))
}

// Check proves that a backup is whole: every checksum and count, SQLite's own
// check of the database, and every log read to its end. Nothing is kept of what
// it unpacks: the database and one log at a time.
func Check(ctx context.Context, file string, o Options) (Report, error) {
	dir, err := os.MkdirTemp(o.Temp, "agented-check-")
	if err != nil {
		return Report{}, explain("the backup cannot be checked", err)
	}
	defer os.RemoveAll(dir)
	r := &reader{o: o, dir: dir}
	if err := r.read(ctx, file); err != nil {
		return Report{}, explain("the backup cannot be checked", err)
	}
	return r.report, nil
}

// Restore makes a data folder of a backup, after the same checks. The folder must
// be new or empty; it is there only when all of it is.
func Restore(ctx context.Context, file, to string, o Options) (Report, error) {
	to, err := filepath.Abs(to)
	if err != nil {
		return Report{}, err
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return Report{}, agented.Errorf(agented.Conflict, "%s is not an empty folder: name a new one, nothing is ever overwritten", to)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(to), ".agented-restore-")
	if err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
	defer os.RemoveAll(dir)
	r := &reader{o: o, dir: dir, keep: true}
	if err := r.read(ctx, file); err != nil {
		return Report{}, explain("the backup cannot be restored", err)
	}
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
	keep bool // the logs stay; else they go once they were looked at

	report Report
	last   place
	sums   *os.File // as they should be
	line   *bufio.Writer
	done   int64
	db     *store.Copy
	sealed []byte
	ended  map[agented.ExecutionID]bool // of those that the database has as running: an exit record is here
	logs   int64                        // that were there of those that must be
	tail   string                       // name of the entry that is being read
}

func (r *reader) read(ctx context.Context, file string) error {
	began := time.Now()
	f, err := os.Open(file)
	if err != nil {
		return agented.Errorf(agented.NotFound, "%s cannot be read: name the file of a backup", file).Because(err)
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
		return bad("its end is not there; it may have been cut off")
	}
	r.report.SHA256 = hex.EncodeToString(sum)
	all := sha256.New()
	body := io.TeeReader(&ticking{ctx, io.LimitReader(f, st.Size()-int64(trailerSize)), func(int) {}}, all)
	if err := r.unpack(ctx, body); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if !bytes.Equal(all.Sum(nil), sum) {
		return bad("its checksum does not match")
	}
	r.report.TookMS = time.Since(began).Milliseconds()
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
	if r.last.stage != 5 {
		return bad("it ends before its manifest")
	}
	// Behind the archive is padding, and nothing else.
	rest := make([]byte, 32<<10)
	for total := 0; ; {
		n, err := dec.Read(rest)
		if total += n; len(bytes.Trim(rest[:n], "\x00")) > 0 || total > 1<<20 {
			return bad("there is something behind its manifest")
		}
		if errors.Is(err, io.EOF) {
			return r.whole(ctx)
		}
		if err != nil {
			return r.broken(ctx, err)
		}
	}
}

// broken is what reading the archive failed with.
func (r *reader) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.tail != "" {
		return bad("in %s: %v", r.tail, err)
	}
	return bad("%v", err)
}

// entry takes one entry, if it is one that a backup has, in its order.
func (r *reader) entry(ctx context.Context, h *tar.Header, t io.Reader) error {
	r.tail = printable(h.Name)
	p, ok := placeOf(h.Name)
	switch {
	case !ok:
		return bad("it has an entry %q, which no backup has", r.tail)
	case h.Typeflag != tar.TypeReg || h.Size < 0 || len(h.PAXRecords) > 8:
		return bad("%s is not a plain file", r.tail)
	case !r.last.before(p):
		return bad("%s is out of order, or there twice", r.tail)
	case p.stage > 0 && r.last.stage < 0, p.stage > 2 && r.last.stage < 2, p.stage == 5 && r.last.stage != 4:
		return bad("something is missing before %s", r.tail)
	}
	r.last = p
	sum := sha256.New()
	switch p.stage {
	case 0, 1, 5:
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
	case 4:
		return r.compareSums(ctx, h, t)
	}
	if p.stage == 5 {
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
		if v := r.report.Head.Format; v != formatVersion {
			return agented.Errorf(agented.Invalid, "the backup has format %d, and this program knows %d: use the version that wrote it (%s)", v, formatVersion, printable(r.report.Head.Program))
		}
	case 1:
		if r.report.Head.Key != KeySealed {
			return bad("it has a key and says that it has none")
		}
		r.sealed = b
	case 5:
		var m Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return bad("%s cannot be read", manifestName)
		}
		have := r.report.Manifest
		if m.Files != have.Files || m.Bytes != have.Bytes || m.Logs != have.Logs || m.Sums != have.Sums || m.Counts != have.Counts {
			return bad("its manifest says %+v, and it holds %+v", m, have)
		}
		r.report.Manifest = m
	}
	return nil
}

// file writes an entry to a file, as long as the disk has room for it.
func (r *reader) file(ctx context.Context, h *tar.Header, t io.Reader, sum hash.Hash, path string) error {
	free, files, err := room(r.dir)
	if err != nil {
		return err
	}
	if free-h.Size < keepFree || files >= 0 && files < 100 {
		return agented.Errorf(agented.Unavailable, "%s needs %s, and %s are free in %s: make room, or choose another place", r.tail, size(h.Size), size(free), filepath.Dir(r.dir))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(io.MultiWriter(onlyWriter{f}, sum), &ticking{ctx, t, func(n int) {
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

// onlyWriter hides the other methods of a file, so that a copy goes by the buffer.
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

// execution takes the log of an execution, or how its last attempt ended.
func (r *reader) execution(ctx context.Context, p place, h *tar.Header, t io.Reader, sum hash.Hash) error {
	e, err := r.db.Execution(ctx, p.execution)
	if err != nil {
		return bad("%s belongs to an execution that its database does not have", r.tail)
	}
	if p.attempt > 0 && (e.State != agented.StateRunning || p.attempt != e.AttemptNo) {
		return bad("%s belongs to an attempt that is over", r.tail)
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
			return bad("%s ends at line %d, and its database knows of %d", r.tail, last, e.LastSeq)
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

// compareSums reads SHA256SUMS and names the first file whose sum is another.
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
			return bad("its checksums say %q, and it holds %q", printable(string(a)), printable(string(b)))
		case errA != nil && errB != nil:
			r.report.Manifest.Sums = hex.EncodeToString(sum.Sum(nil))
			return nil
		}
	}
}

// whole looks at what can only be seen at the end.
func (r *reader) whole(ctx context.Context) error {
	expected, err := r.db.Expected(ctx)
	if err != nil {
		return bad("its database: %v", err)
	}
	if m := r.report.Manifest; r.logs+m.MissingLogs != expected {
		return bad("its database knows of %d logs, and %d are here", expected, r.logs)
	}
	if n := r.report.Manifest.MissingLogs; n > 0 {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("%d logs were missing already when the backup was taken", n))
	}
	if err := r.key(); err != nil {
		return err
	}
	return r.db.Executions(ctx, func(e store.CopiedExecution) error {
		if e.State != agented.StateRunning {
			return nil
		}
		if !agented.ValidID("exec", string(e.ID)) {
			return bad("its database has an execution %q", printable(string(e.ID)))
		}
		r.report.Settled++
		if r.ended[e.ID] || !r.keep {
			return nil
		}
		return r.settle(e)
	})
}
