package runlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
)

const (
	// Lines per sync of the header; a log with 200 lines per second needs one
	// sync in five minutes.
	reserveAhead = 1 << 16
	// Numbers to skip if the header with the reserve is damaged: more than can
	// be printed between two syncs.
	unknownReserve = 1 << 24
	// A larger buffer is not kept, to keep the shim small.
	keepBuffer = 256 << 10
)

// Writer appends to the log of one execution. There is at most one at a time,
// over all processes. Its methods are safe for concurrent use.
type Writer struct {
	dir string
	f   *os.File

	mu       sync.Mutex // guards the fields below
	head     header     // as in the file
	boot     string
	t        tally // up to the end of the log
	made     bool  // the file is new and its name not synced
	torn     bool  // bytes after t.off could not be truncated yet
	unsynced bool  // written since the last sync
	closed   bool
	buf      []byte

	idx     *os.File // nil until the first entry, or if it cannot be written
	idxSize int64
	idxLast entry
	pending []entry
}

// OpenWriter creates or opens the log in dir, which must exist. It truncates a
// torn record. After a power failure it appends a system line with the lost
// numbers and the time now. It returns Conflict while another writer has the
// log, and once the log is sealed.
func OpenWriter(dir string, now time.Time) (*Writer, error) {
	return openWriter(dir, now, bootID())
}

func openWriter(dir string, now time.Time, boot string) (*Writer, error) {
	f, err := lockLog(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, f: f, boot: boot}
	if err := w.recover(now); err != nil {
		w.abandon()
		return nil, fmt.Errorf("open run log: %w", err)
	}
	return w, nil
}

// lockLog opens or creates the log and locks it.
func lockLog(dir string) (*os.File, error) {
	path, sealed := filepath.Join(dir, logName), filepath.Join(dir, sealedName)
	errSealed := agented.Errorf(agented.Conflict, "the log of this execution is sealed")
	if _, err := os.Stat(sealed); err == nil {
		return nil, errSealed
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open run log: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		filelock.Release(f)
		return nil, fmt.Errorf("open run log: %w", err)
	}
	// A seal may have run between the two checks. Its file takes precedence,
	// and an empty log next to it would hide it.
	if _, err := os.Stat(sealed); err == nil {
		if st.Size() < headerSize {
			os.Remove(path)
		}
		filelock.Release(f)
		return nil, errSealed
	}
	return f, nil
}

func lock(f *os.File) error {
	err := filelock.Try(f)
	if errors.Is(err, filelock.ErrHeld) {
		return agented.Errorf(agented.Conflict, "the log of this execution is being written by another process")
	}
	if err != nil {
		return fmt.Errorf("lock run log: %w", err)
	}
	return nil
}

// abandon closes the file without writing anything.
func (w *Writer) abandon() {
	w.closed = true
	if w.idx != nil {
		w.idx.Close()
	}
	filelock.Release(w.f)
}

// recover repairs the file and determines the end of the log.
func (w *Writer) recover(now time.Time) error {
	l := &live{f: w.f, dir: w.dir}
	defer l.release()
	there, err := l.check()
	if err != nil {
		return err
	}
	if !there {
		// The header of the log was never synced: no number was assigned.
		if err := w.f.Truncate(0); err != nil {
			return err
		}
		os.Remove(filepath.Join(w.dir, indexName))
		w.made, w.t, w.idxLast = true, start, entry{off: headerSize}
		w.head = header{created: now.UnixMicro(), boot: w.boot}
		return w.writeHeader(w.head)
	}
	w.head = l.head
	if l.damaged {
		w.head.created = now.UnixMicro() // an index created from now on belongs to it
	}
	if err := w.scan(l); err != nil {
		return err
	}
	st, err := w.f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > w.t.off {
		if err := w.f.Truncate(w.t.off); err != nil {
			return err
		}
		w.unsynced = true
	}
	if w.head.reserved != w.t.seq {
		w.unsynced = true // its writer did not reach its last sync
	}
	return w.bridge(now, l.damaged)
}

// scan reads from the last valid index entry to the end of the last whole
// record, and extends the index up to there.
func (w *Writer) scan(l *live) error {
	w.t, w.idxLast = start, entry{off: headerSize}
	w.openIndex()
	for w.idx != nil && w.idxSize > indexHeader {
		t := table{r: w.idx, start: indexHeader}
		if e, ok := t.at((w.idxSize-indexHeader)/entrySize - 1); ok && l.holds(e) {
			w.t, w.idxLast = e.tally(), e
			break
		}
		w.idxSize -= entrySize
	}
	if w.idx != nil {
		w.idx.Truncate(w.idxSize)
	}
	c := cursor{src: l, off: w.t.off, seq: w.t.seq}
	for {
		r, err := c.next()
		if err != nil {
			return err
		}
		if r == nil {
			w.flushIndex()
			return nil
		}
		if w.t.due(w.idxLast) {
			w.mark(r.seq)
			w.flushIndex()
		}
		w.t.add(r)
	}
}

// bridge skips the numbers of lines that a power failure may have removed, and
// appends a system line about them.
func (w *Writer) bridge(now time.Time, damaged bool) error {
	reserved := w.head.reserved
	if damaged {
		reserved = w.t.seq + unknownReserve
	} else if w.head.boot == w.boot && w.boot != "" || reserved <= w.t.seq {
		return nil
	}
	lost := w.t.seq + 1
	w.t.seq = reserved
	attempt := int(w.t.attempt)
	if w.head.boot == copiedBoot {
		return w.appendSystem(attempt, now, "This log was copied while it was being written: later lines, numbers %d to %d at most, are not in the copy.", lost, reserved)
	}
	return w.appendSystem(attempt, now, "The machine stopped before the last lines were synced to disk: numbers %d to %d may have been assigned to lines that were lost.", lost, reserved)
}

// writeHeader overwrites the header in the file.
func (w *Writer) writeHeader(h header) error {
	_, err := w.f.WriteAt(h.append(make([]byte, 0, headerSize)), 0)
	if err == nil {
		w.unsynced = true
	}
	return err
}

// reserve makes sure that numbers up to seq are reserved on disk.
func (w *Writer) reserve(seq agented.Seq) error {
	if seq <= w.head.reserved && w.head.boot == w.boot {
		return nil
	}
	h := w.further(seq)
	if err := w.writeHeader(h); err != nil {
		return fmt.Errorf("reserve line numbers: %w", err)
	}
	if err := w.sync(); err != nil {
		return fmt.Errorf("reserve line numbers: %w", err)
	}
	w.head = h
	return nil
}

// ReserveAhead reserves numbers, as the first Append would, without an fsync: the
// caller makes the log's file and folder durable together with other files, and
// then calls done. Nothing may be appended in between. Until done is called, an
// Append syncs as if nothing had been reserved.
func (w *Writer) ReserveAhead() (done func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, fmt.Errorf("reserve line numbers: %w", fs.ErrClosed)
	}
	h := w.further(w.t.seq + 1)
	if err := w.writeHeader(h); err != nil {
		return nil, fmt.Errorf("reserve line numbers: %w", err)
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.head, w.made = h, false
	}, nil
}

// further returns a header that reserves numbers up to seq and beyond.
func (w *Writer) further(seq agented.Seq) header {
	return header{created: w.head.created, reserved: max(seq, w.head.reserved) + reserveAhead, boot: w.boot}
}

// Append assigns numbers to the records, in place, and writes them with one
// write: when it returns they are in the file, visible to other processes, and
// survive the end of this one.
//
// On an error (for example a full disk: errors.Is(err, syscall.ENOSPC)) the
// file is truncated to whole records. Records that were written keep their
// numbers, since readers may have seen them; they are the first of recs, those
// whose Seq is not 0. The others have Seq 0 and were not logged; append them
// again later.
func (w *Writer) Append(recs []Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(recs)
}

// AppendSystem appends one system line about the attempt (0 if it is about
// none). It is truncated to MaxLine.
func (w *Writer) AppendSystem(attempt int, now time.Time, format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.appendSystem(attempt, now, format, args...)
}

func (w *Writer) appendSystem(attempt int, now time.Time, format string, args ...any) error {
	text := fmt.Appendf(nil, format, args...)
	if len(text) > MaxLine {
		text = bytes.ToValidUTF8(text[:MaxLine], nil)
	}
	return w.append([]Record{{LogLine: agented.LogLine{At: now, Attempt: attempt, Stream: agented.System, Content: text}}})
}

func (w *Writer) append(recs []Record) error {
	for i := range recs {
		recs[i].Seq = 0
	}
	if w.closed {
		return fmt.Errorf("append to run log: %w", fs.ErrClosed)
	}
	if len(recs) == 0 {
		return nil
	}
	for i := range recs {
		if err := check(&recs[i]); err != nil {
			return err
		}
	}
	if w.torn {
		if err := w.f.Truncate(w.t.off); err != nil {
			return fmt.Errorf("append to run log: %w", err)
		}
		w.torn = false
	}
	if err := w.reserve(w.t.seq + agented.Seq(len(recs))); err != nil {
		return err
	}
	before, entryBefore := w.t, w.idxLast
	w.encode(recs)
	n, err := w.f.WriteAt(w.buf, before.off)
	written := len(recs)
	if n > 0 {
		w.unsynced = true
	}
	if err != nil {
		written = 0
		for end := 0; written < len(recs); written++ {
			if end += recordHeader + len(recs[written].Content); end > n {
				break
			}
		}
		w.t, w.idxLast, w.pending = before, entryBefore, w.pending[:0]
		w.encode(recs[:written])
		if w.f.Truncate(w.t.off) != nil {
			w.torn = true
		}
	}
	for i := range recs[:written] {
		recs[i].Seq = before.seq + agented.Seq(i) + 1
	}
	if cap(w.buf) > keepBuffer {
		w.buf = nil
	}
	if len(w.pending) > 0 {
		w.flushIndex()
	}
	if err != nil {
		return fmt.Errorf("append to run log: %w", err)
	}
	return nil
}

// encode encodes the records into buf and counts them in t; due index entries
// stay pending until the records are written.
func (w *Writer) encode(recs []Record) {
	w.buf = w.buf[:0]
	for i := range recs {
		r := &recs[i]
		seq := w.t.seq + 1
		if w.t.due(w.idxLast) {
			w.mark(seq)
		}
		w.buf = appendRecord(w.buf, r, seq)
		v := raw{seq: seq, rawEnd: r.RawEnd, attempt: uint32(r.Attempt), stream: streamCode(r.Stream), content: r.Content}
		v.flags = partCode(r.Part)
		if r.NoEOL {
			v.flags |= flagNoEOL
		}
		w.t.add(&v)
	}
}

// check returns an error if a record could not be read back.
func check(r *Record) error {
	switch {
	case len(r.Content) > MaxLine:
		return agented.Errorf(agented.Invalid, "a log record has at most %d bytes, not %d", MaxLine, len(r.Content))
	case !r.Stream.Valid():
		return agented.Errorf(agented.Invalid, "invalid stream %q", r.Stream)
	case r.Part != agented.PartWhole && partCode(r.Part) == 0:
		return agented.Errorf(agented.Invalid, "invalid part %q", r.Part)
	case r.Attempt < 0 || r.Attempt > math.MaxInt32:
		return agented.Errorf(agented.Invalid, "invalid attempt %d", r.Attempt)
	case r.RawEnd < 0:
		return agented.Errorf(agented.Invalid, "raw offset %d is negative", r.RawEnd)
	}
	return nil
}

// LastSeq returns the number of the last record, 0 if there is none.
func (w *Writer) LastSeq() agented.Seq {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.t.seq
}

// Size returns the size of the log in bytes.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.t.off
}

// RawEnd returns how much of the raw stream of an attempt is in the log: the
// RawEnd of its last record, 0 if it has none. For attempts other than the
// newest it reads the whole log.
func (w *Writer) RawEnd(attempt int, s agented.Stream) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	code := streamCode(s)
	if code != codeStdout && code != codeStderr || attempt > int(w.t.attempt) || attempt < 0 {
		return 0
	}
	if attempt == int(w.t.attempt) {
		return w.t.rawEnd[code-codeStdout]
	}
	l := &live{f: w.f, dir: w.dir}
	defer l.release()
	c := cursor{src: l, off: headerSize}
	end := int64(0)
	for c.off < w.t.off {
		r, err := c.next()
		if r == nil || err != nil {
			break
		}
		if int(r.attempt) == attempt && r.stream == code {
			end = r.rawEnd
		}
	}
	return end
}

// Sync syncs the appended records to disk, if necessary. Append does not wait
// for it.
func (w *Writer) Sync() error {
	w.mu.Lock()
	if w.closed || !w.unsynced {
		w.mu.Unlock()
		return nil
	}
	w.unsynced = false
	w.mu.Unlock()
	if err := datasync(w.f); err != nil {
		w.mu.Lock()
		w.unsynced = true
		w.mu.Unlock()
		return fmt.Errorf("sync run log: %w", err)
	}
	return nil
}

// sync is Sync with the lock held; the first call also makes the file's name
// durable.
func (w *Writer) sync() error {
	if w.made {
		if err := disk.SyncDir(w.dir); err != nil {
			return err
		}
		w.made = false
	}
	if !w.unsynced {
		return nil
	}
	if err := datasync(w.f); err != nil {
		return err
	}
	w.unsynced = false
	return nil
}

// Close syncs the log, records the graceful close, and releases the lock. The
// lock is released even if it returns an error; then only the record and the
// sync may be missing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	defer w.abandon()
	var err error
	if w.torn {
		err = w.f.Truncate(w.t.off)
	}
	given := w.t.seq > 0
	if h := (header{created: w.head.created, reserved: w.t.seq, boot: w.boot}); err == nil && w.head.reserved != h.reserved {
		err = w.writeHeader(h)
		given = true // reserved and unused numbers must not look lost
	}
	if err == nil && given {
		err = w.sync()
	}
	if err != nil {
		return fmt.Errorf("close run log: %w", err)
	}
	return nil
}

// mark records that the next record, seq, gets an entry.
func (w *Writer) mark(seq agented.Seq) {
	w.idxLast = w.t.entryFor(seq)
	w.pending = append(w.pending, w.idxLast)
}

// flushIndex writes pending entries. The index is optional: if it cannot be
// written, the log continues without it, and seeks take longer.
func (w *Writer) flushIndex() {
	entries := w.pending
	w.pending = w.pending[:0]
	if len(entries) == 0 {
		return
	}
	if w.idx == nil {
		w.createIndex()
	}
	if w.idx == nil {
		return
	}
	b := make([]byte, 0, entrySize)
	for _, e := range entries {
		if _, err := w.idx.WriteAt(e.append(b), w.idxSize); err != nil {
			return // the next entry is written at the same offset
		}
		w.idxSize += entrySize
	}
}

// openIndex opens the index of this log.
func (w *Writer) openIndex() {
	f, err := os.OpenFile(filepath.Join(w.dir, indexName), os.O_RDWR, 0)
	if err != nil {
		return
	}
	var p [indexHeader]byte
	st, err := f.Stat()
	if err == nil {
		_, err = f.ReadAt(p[:], 0)
	}
	if err != nil && !errors.Is(err, io.EOF) || !indexOf(p[:], w.head.created) {
		f.Close()
		return
	}
	w.idx = f
	w.idxSize = indexHeader + (st.Size()-indexHeader)/entrySize*entrySize
}

// createIndex creates a new index.
func (w *Writer) createIndex() {
	f, err := os.OpenFile(filepath.Join(w.dir, indexName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	if _, err := f.WriteAt(appendIndexHeader(nil, w.head.created), 0); err != nil {
		f.Close()
		return
	}
	w.idx, w.idxSize = f, indexHeader
}
