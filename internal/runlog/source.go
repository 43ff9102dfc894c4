package runlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/agented/agented"
)

// A source is where the bytes of a log come from: a growing file or a sealed
// one. Offsets are those of the log before sealing.
type source interface {
	// window returns the bytes at off, at least least of them if they are there
	// now. They are valid until the next call of window or release.
	window(off int64, least int) ([]byte, error)
	// release gives buffers back; the next window takes them again.
	release()
	// near returns the last indexed place for which ok holds, else the start.
	near(ok func(entry) bool) (tally, error)
	// end returns what lies before the end of what is there now.
	end() (tally, error)
	// short reports whether the last window reached the end of what was there, so
	// that there is more only after an append.
	short() bool
	// beyond reports whether a good record is known to start behind off, so
	// that a bad one at off cannot become good any more.
	beyond(off int64) bool
	close() error
}

// chunk is how much is read at once. A reader that catches up holds one chunk
// (a record that is larger takes a large buffer for as long as it is looked
// at); one that waits holds none.
const chunk = 64 << 10

var (
	chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}
	larges = sync.Pool{New: func() any { b := make([]byte, maxRecord); return &b }}
)

// buffer is a pooled buffer of one of two sizes.
type buffer struct{ p *[]byte }

func (b *buffer) need(n int) []byte {
	switch {
	case b.p != nil && len(*b.p) >= n:
		return *b.p
	case n <= chunk:
		b.put()
		b.p = chunks.Get().(*[]byte)
	default:
		b.put()
		b.p = larges.Get().(*[]byte)
	}
	return *b.p
}

func (b *buffer) put() {
	if b.p == nil {
		return
	}
	if len(*b.p) == chunk {
		chunks.Put(b.p)
	} else {
		larges.Put(b.p)
	}
	b.p = nil
}

// start is the tally in front of the first record.
var start = tally{off: headerSize}

// live reads a log file that may be growing.
type live struct {
	f       *os.File
	dir     string
	head    header
	checked bool // the header is there and is one of ours
	damaged bool // but its checksum is not right; the records are read all the same
	buf     buffer
	ended   bool  // the last window reached the end
	tail    tally // a place at or before the end, behind a good record
}

func (l *live) close() error {
	l.release()
	return l.f.Close()
}

func (l *live) release() { l.buf.put() }

// check looks at the header once it is there. A writer that has only just
// created the file may not have written it yet.
func (l *live) check() (bool, error) {
	if l.checked {
		return true, nil
	}
	var p [headerSize]byte
	if n, err := l.f.ReadAt(p[:], 0); n < headerSize {
		if err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read run log: %w", err)
		}
		return false, nil
	}
	if p == [headerSize]byte{} {
		return false, nil // a power cut can leave a size without the bytes
	}
	h, err := decodeHeader(p[:])
	if err != nil && !errors.Is(err, errBadHeader) {
		return false, fmt.Errorf("read run log: %w", err)
	}
	l.head, l.checked, l.damaged, l.tail = h, true, err != nil, start
	return true, nil
}

func (l *live) window(off int64, least int) ([]byte, error) {
	if ok, err := l.check(); !ok {
		return nil, err
	}
	if least > maxRecord {
		return nil, fmt.Errorf("read run log: record of %d bytes", least)
	}
	b := l.buf.need(max(least, recordHeader))
	n, err := l.f.ReadAt(b, off)
	l.ended = n < len(b)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read run log: %w", err)
	}
	return b[:n], nil
}

func (l *live) short() bool { return l.ended }

// index opens the index for one look. It is not kept open: a process may hold
// thousands of readers, and most of them look once.
func (l *live) index() (*os.File, table) {
	f, err := os.Open(filepath.Join(l.dir, indexName))
	if err != nil {
		return nil, table{}
	}
	var p [indexHeader]byte
	st, err := f.Stat()
	if err == nil {
		_, err = f.ReadAt(p[:], 0)
	}
	if err != nil || !indexOf(p[:], l.head.created) {
		f.Close()
		return nil, table{}
	}
	return f, table{r: f, start: indexHeader, count: (st.Size() - indexHeader) / entrySize}
}

func (l *live) near(ok func(entry) bool) (tally, error) {
	if there, err := l.check(); !there {
		return start, err
	}
	f, t := l.index()
	if f == nil {
		return start, nil
	}
	defer f.Close()
	for {
		e, i := t.last(ok)
		if i < 0 {
			return start, nil
		}
		if l.holds(e) {
			return e.tally(), nil
		}
		t.count = i
	}
}

// holds reports whether the log has the record that e points to.
func (l *live) holds(e entry) bool {
	b, err := l.window(e.off, recordHeader)
	if err != nil {
		return false
	}
	var r raw
	size, v := r.decode(b)
	if v == short && size > len(b) {
		if b, err = l.window(e.off, size); err != nil {
			return false
		}
		_, v = r.decode(b)
	}
	return v == whole && r.seq == e.seq
}

func (l *live) end() (tally, error) {
	if there, err := l.check(); !there {
		return start, err
	}
	st, err := l.f.Stat()
	if err != nil {
		return tally{}, fmt.Errorf("read run log: %w", err)
	}
	if st.Size()-l.tail.off > indexBytes {
		t, err := l.near(func(entry) bool { return true })
		if err != nil {
			return tally{}, err
		}
		if t.off > l.tail.off {
			l.tail = t
		}
	}
	if st.Size() > l.tail.off {
		c := cursor{src: l, off: l.tail.off, seq: l.tail.seq}
		for {
			r, err := c.next()
			if err != nil {
				return tally{}, err
			}
			if r == nil {
				break
			}
			l.tail.add(r)
		}
		l.release()
	}
	return l.tail, nil
}

func (l *live) beyond(off int64) bool {
	t, err := l.near(func(entry) bool { return true })
	return err == nil && t.off > off
}

// cursor walks over the records of a source.
type cursor struct {
	src source
	off int64       // of the next record
	seq agented.Seq // of the last record, so that numbers only grow
	win []byte      // bytes at off that were read already
	rec raw
}

// peek decodes the next record from the window.
func (c *cursor) peek() (*raw, int, verdict) {
	size, v := c.rec.decode(c.win)
	if v == whole && c.rec.seq <= c.seq {
		v = bad
	}
	return &c.rec, size, v
}

// skip steps over the record of size bytes that was peeked.
func (c *cursor) skip(size int) {
	c.off += int64(size)
	c.seq = c.rec.seq
	c.win = c.win[size:]
}

// fill reads the window again from off. What the window held becomes invalid.
func (c *cursor) fill(least int) error {
	w, err := c.src.window(c.off, least)
	c.win = w
	return err
}

// drop forgets the window and gives its buffer back.
func (c *cursor) drop() {
	c.win = nil
	c.src.release()
}

// look is peek, reading as much as it takes; false at the end of what is there.
func (c *cursor) look() (r *raw, size int, ok bool, err error) {
	r, size, v := c.peek()
	// At most three reads: a header, the record that it announces, and once more
	// because the first may have seen half of a write.
	for tries := 0; v != whole && tries < 3; tries++ {
		least := recordHeader
		if v == short {
			least = size
		}
		if err := c.fill(least); err != nil {
			return nil, 0, false, err
		}
		if len(c.win) < least {
			break
		}
		r, size, v = c.peek()
	}
	return r, size, v == whole, nil
}

// next returns the next record, nil at the end of what is there. It is valid
// until the call after.
func (c *cursor) next() (*raw, error) {
	r, size, ok, err := c.look()
	if !ok {
		c.win = nil
		return nil, err
	}
	c.skip(size)
	return r, nil
}

// openSource opens what is there: the log, else the sealed log.
func openSource(dir string) (source, error) {
	f, err := os.Open(filepath.Join(dir, logName))
	if err == nil {
		l := &live{f: f, dir: dir}
		ok, err := l.check()
		if ok || err != nil {
			if err != nil {
				f.Close()
				return nil, err
			}
			return l, nil
		}
		// Not even a header. Beside a sealed log that is what a writer left that
		// came too late.
		if s, err := openSealed(dir); err == nil {
			f.Close()
			return s, nil
		}
		return l, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open run log: %w", err)
	}
	s, err := openSealed(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, agented.Errorf(agented.NotFound, "there is no log yet").Because(err)
	}
	if err != nil {
		return nil, fmt.Errorf("open sealed run log: %w", err)
	}
	return s, nil
}
