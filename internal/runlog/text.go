package runlog

import (
	"errors"
	"fmt"
	"io"
)

// Text is the output of an execution's attempts, stdout and stderr in the order
// of the log, byte for byte and without system lines. Its end is fixed when it
// is opened, so that it can be served with ranges while the log grows. It must
// not be used concurrently.
type Text struct {
	src  source
	c    cursor
	size int64
	pos  int64 // position of the next Read

	placed  bool   // c is after the record of rest, and rest begins at pos
	rest    []byte // of the current record
	newline bool   // follows rest
}

// OpenText opens the text of the log in dir. It returns NotFound if there is no
// log.
func OpenText(dir string) (*Text, error) {
	src, err := openSource(dir)
	if err != nil {
		return nil, err
	}
	t, err := src.end()
	if err != nil {
		src.close()
		return nil, err
	}
	return &Text{src: src, size: t.text}, nil
}

// Size returns the length of the text in bytes.
func (t *Text) Size() int64 { return t.size }

// Seek sets the position of the next Read. It does no I/O.
func (t *Text) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += t.pos
	case io.SeekEnd:
		offset += t.size
	default:
		return 0, fmt.Errorf("seek in log text: whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek in log text: position is before the start")
	}
	if offset != t.pos {
		t.pos, t.placed = offset, false
	}
	return offset, nil
}

// Read fills p unless the text ends first.
func (t *Text) Read(p []byte) (int, error) {
	if t.pos >= t.size {
		return 0, io.EOF
	}
	if !t.placed {
		if err := t.place(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), t.size-t.pos)]
	n := 0
	for n < len(p) {
		k := copy(p[n:], t.rest)
		t.rest = t.rest[k:]
		n += k
		if n < len(p) && t.newline {
			p[n] = '\n'
			n++
			t.newline = false
		}
		if n < len(p) {
			if err := t.advance(); err != nil {
				t.pos += int64(n)
				t.placed = false
				return n, err
			}
		}
	}
	t.pos += int64(n)
	return n, nil
}

// place moves the cursor to pos: one seek and a scan of at most the distance
// between two index entries.
func (t *Text) place() error {
	t.rest = nil
	t.newline = false
	t.src.release()
	near, err := t.src.near(func(e entry) bool { return e.text <= t.pos })
	if err != nil {
		return err
	}
	t.c = cursor{src: t.src, off: near.off, seq: near.seq}
	at := near.text
	for {
		if err := t.advance(); err != nil {
			return err
		}
		n := int64(len(t.rest))
		if t.newline {
			n++
		}
		if at+n > t.pos {
			break
		}
		at += n
	}
	if skip := t.pos - at; skip >= int64(len(t.rest)) {
		t.rest = nil // only its newline is left
	} else {
		t.rest = t.rest[skip:]
	}
	t.placed = true
	return nil
}

// advance moves to the next record that has text.
func (t *Text) advance() error {
	for {
		r, err := t.c.next()
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("run log is damaged at byte %d, after line %d: %w", t.c.off, t.c.seq, io.ErrUnexpectedEOF)
		}
		if r.stream != codeSystem {
			t.rest, t.newline = r.content, r.newline()
			return nil
		}
	}
}

// Close closes the file and releases the buffers.
func (t *Text) Close() error {
	t.rest, t.c.win = nil, nil
	return t.src.close()
}
