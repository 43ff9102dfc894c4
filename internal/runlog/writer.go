package runlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/agented/agented"
)

const (
	// One sync for so many lines; a log that prints 200 lines a second pays one
	// in five minutes.
	reserveAhead = 1 << 16
	// What is skipped when the header that knew the reserve is damaged: more
	// than can be printed between two syncs.
	unknownReserve = 1 << 24
	// A buffer that one large batch made is not kept: a shim is small.
	keepBuffer = 256 << 10
)

// Writer appends to the log of one execution. There is at most one at a time,
// over all processes. Its methods may be called from several goroutines.
type Writer struct {
	dir string
	f   *os.File

	mu       sync.Mutex // guards what follows
	head     header     // as it is in the file
	boot     string
	t        tally // up to the end of the log
	made     bool  // the file is new and its name not synced
	torn     bool  // bytes behind t.off could not be cut off yet
	unsynced bool  // something was written since the last sync
	closed   bool
	buf      []byte

	idx     *os.File // nil until the first entry, and where it cannot be written
	idxSize int64
	idxLast entry
	pending []entry
}

// OpenWriter creates or opens the log in dir, which must exist. What a crash
// left torn is cut off. After a power cut it appends a system line that names
// the numbers that were lost, with the time now. The error is Conflict while
// another writer has the log and once the log is sealed.
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

// lockLog opens or creates the log and takes its lock.
func lockLog(dir string) (*os.File, error) {
	path, sealed := filepath.Join(dir, logName), filepath.Join(dir, sealedName)
	errSealed := agented.Errorf(agented.Conflict, "the log of this execution is closed for good")
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
		f.Close()
		return nil, fmt.Errorf("open run log: %w", err)
	}
	// A seal may have run between the two looks. Its file counts, and an empty
	// one beside it would hide it.
	if _, err := os.Stat(sealed); err == nil {
		if st.Size() < headerSize {
			os.Remove(path)
		}
		f.Close()
		return nil, errSealed
	}
	return f, nil
}

func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return agented.Errorf(agented.Conflict, "the log of this execution is being written by another process")
	}
	if err != nil {
		return fmt.Errorf("lock run log: %w", err)
	}
	return nil
}

// abandon closes without writing anything.
func (w *Writer) abandon() {
	w.closed = true
	if w.idx != nil {
		w.idx.Close()
	}
	// Unlocked by hand: a child that was forked and has not come to its exec yet
	// holds the same lock for a moment.
	syscall.Flock(int(w.f.Fd()), syscall.LOCK_UN)
	w.f.Close()
}

// recover brings the file into order and finds out where the log stands.
func (w *Writer) recover(now time.Time) error {
	l := &live{f: w.f, dir: w.dir}
	defer l.release()
	there, err := l.check()
	if err != nil {
		return err
	}
	if !there {
		// A log whose header never came to the disk: no number was given out.
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
		w.head.created = now.UnixMicro() // an index made from here on belongs to it
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
		w.unsynced = true // whoever wrote it did not come to its last sync
	}
	return w.bridge(now, l.damaged)
}

// scan reads from the last good index entry to the end of the last whole
// record, and brings the index up to there.
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

// bridge skips the numbers that may have been given to lines that a power cut
// took, and says so in the log.
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
		return w.appendSystem(attempt, now, "This log was copied while it was being written: what came behind it, numbers %d to %d at most, is not in the copy.", lost, reserved)
	}
	return w.appendSystem(attempt, now, "The machine stopped before the last lines were on disk: numbers %d to %d may have been given to lines that were not saved.", lost, reserved)
}

// writeHeader writes h over the header in the file.
func (w *Writer) writeHeader(h header) error {
	_, err := w.f.WriteAt(h.append(make([]byte, 0, headerSize)), 0)
	if err == nil {
		w.unsynced = true
	}
	return err
}

// reserve makes sure on disk that numbers up to seq count as given out.
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

// Ahead reserves numbers, as the first Append would, without waiting for the disk:
// that is for the caller, who makes the log's file and folder durable with what else
// there is, and then calls done. Nothing may be appended in between. Until done is
// called an Append waits as if nothing had been reserved.
func (w *Writer) Ahead() (done func(), err error) {
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

// further is the header that reserves numbers up to seq and beyond.
func (w *Writer) further(seq agented.Seq) header {
	return header{created: w.head.created, reserved: max(seq, w.head.reserved) + reserveAhead, boot: w.boot}
}

// Append gives the records numbers, in place, and writes them with one write:
// when it returns they are in the file, where every other process sees them,
// and survive the end of this one.
//
// On an error (a full disk: errors.Is(err, syscall.ENOSPC)) the file is cut
// back to whole records. Those that did get in keep their numbers, since
// somebody may have read them; they are the first of recs, those whose Seq is
// not 0. The others have Seq 0 and were not logged; appending them again later
// is right.
func (w *Writer) Append(recs []Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(recs)
}

// AppendSystem appends one system line: something that Agented itself has to
// say about the attempt (0 if it is about none). It is cut at MaxLine.
func (w *Writer) AppendSystem(attempt int, now time.Time, format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.appendSystem(attempt, now, format, args...)
}

func (w *Writer) appendSystem(attempt int, now time.Time, format string, args ...any) error {
	text := fmt.Appendf(nil, format, args...)
	text = text[:min(len(text), MaxLine)]
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

// encode puts the records into buf and counts them in t; entries of the index
// that became due are pending until the records are written.
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

// check refuses what could not be read back.
func check(r *Record) error {
	switch {
	case len(r.Content) > MaxLine:
		return agented.Errorf(agented.Invalid, "a log record holds at most %d bytes, not %d", MaxLine, len(r.Content))
	case !r.Stream.Valid():
		return agented.Errorf(agented.Invalid, "no stream %q", r.Stream)
	case r.Part != agented.PartWhole && partCode(r.Part) == 0:
		return agented.Errorf(agented.Invalid, "no part %q", r.Part)
	case r.Attempt < 0 || r.Attempt > math.MaxInt32:
		return agented.Errorf(agented.Invalid, "no attempt %d", r.Attempt)
	case r.RawEnd < 0:
		return agented.Errorf(agented.Invalid, "raw offset %d is below 0", r.RawEnd)
	}
	return nil
}

// LastSeq is the number of the last record, 0 if there is none.
func (w *Writer) LastSeq() agented.Seq {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.t.seq
}

// Size is the size of the log in bytes.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.t.off
}

// RawEnd is how far the raw stream of an attempt is in the log: the RawEnd of
// its last record, 0 if it has none. For any but the newest attempt the whole
// log is read.
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

// Sync puts what was appended on the disk; nothing happens if it is there.
// Appending goes on meanwhile.
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

// sync is Sync with the lock held; the first time it also makes the file's name
// durable.
func (w *Writer) sync() error {
	if w.made {
		if err := syncDir(w.dir); err != nil {
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

// Close syncs the log, notes that it was closed in order, and lets another
// writer have it. Also when it returns an error the log is free; all that can
// be missing then is the note and the sync.
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
		given = true // what was reserved and not used must not look lost
	}
	if err == nil && given {
		err = w.sync()
	}
	if err != nil {
		return fmt.Errorf("close run log: %w", err)
	}
	return nil
}

// mark notes that the record seq, which comes next, gets an entry.
func (w *Writer) mark(seq agented.Seq) {
	w.idxLast = w.t.entryFor(seq)
	w.pending = append(w.pending, w.idxLast)
}

// flushIndex writes pending entries. The index is a convenience: where it
// cannot be written the log goes on without, and seeks take longer.
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
			return // the next entry goes to the same place
		}
		w.idxSize += entrySize
	}
}

// openIndex opens an index that belongs to this log.
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

// createIndex starts an index over.
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
