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

// A source provides the bytes of a log from a growing or a sealed file. Offsets
// are those of the unsealed log.
type source interface {
	// window returns the bytes at off, at least least of them if available.
	// They are valid until the next call of window or release.
	window(off int64, least int) ([]byte, error)
	// release releases buffers; the next window allocates them again.
	release()
	// near returns the last indexed position for which ok holds, otherwise the
	// start.
	near(ok func(entry) bool) (tally, error)
	// end returns the tally of everything that is available.
	end() (tally, error)
	// short reports whether the last window reached the available end, so that
	// only an append adds more.
	short() bool
	// beyond reports whether a valid record is known to start after off, so
	// that an invalid one at off cannot become valid any more.
	beyond(off int64) bool
	close() error
}

// chunk is how many bytes are read at once. A reader that catches up holds one
// chunk (a larger record needs a large buffer while it is read); a waiting
// reader holds none.
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

// start is the tally before the first record.
var start = tally{off: headerSize}

// live reads a log file that may be growing.
type live struct {
	f       *os.File
	dir     string
	head    header
	checked bool // the header exists and is valid
	damaged bool // its checksum is wrong; the records are read anyway
	buf     buffer
	ended   bool  // the last window reached the end
	tail    tally // a position at or before the end, after a valid record
}

func (l *live) close() error {
	l.release()
	return l.f.Close()
}

func (l *live) release() { l.buf.put() }

// check validates the header once it exists. A writer that has just created the
// file may not have written it yet.
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
		return false, nil // a power failure can leave a size without the bytes
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

// index opens the index for one lookup. It is not kept open, because a process
// may have thousands of readers, and most of them need one lookup.
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

// cursor iterates over the records of a source.
type cursor struct {
	src source
	off int64       // of the next record
	seq agented.Seq // of the last record; numbers must increase
	win []byte      // bytes at off that are already read
	rec raw
}

// peek decodes the next record in the window.
func (c *cursor) peek() (*raw, int, decodeResult) {
	size, v := c.rec.decode(c.win)
	if v == whole && c.rec.seq <= c.seq {
		v = bad
	}
	return &c.rec, size, v
}

// skip advances over the record of size bytes from peek.
func (c *cursor) skip(size int) {
	c.off += int64(size)
	c.seq = c.rec.seq
	c.win = c.win[size:]
}

// fill rereads the window from off. It invalidates the previous window.
func (c *cursor) fill(least int) error {
	w, err := c.src.window(c.off, least)
	c.win = w
	return err
}

// drop releases the window.
func (c *cursor) drop() {
	c.win = nil
	c.src.release()
}

// peekFilled is peek that reads as much as it needs; false at the available end.
func (c *cursor) peekFilled() (r *raw, size int, ok bool, err error) {
	r, size, v := c.peek()
	// At most three reads: a header, the record that it announces, and once
	// more because the first may have seen a partial write.
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

// next returns the next record, nil at the available end. It is valid until the
// next call.
func (c *cursor) next() (*raw, error) {
	r, size, ok, err := c.peekFilled()
	if !ok {
		c.win = nil
		return nil, err
	}
	c.skip(size)
	return r, nil
}

// openSource opens the log, or the sealed log if there is none.
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
		// Not even a header. Next to a sealed log this is from a late writer.
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
