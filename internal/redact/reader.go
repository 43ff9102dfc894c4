package redact

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of masking a text piece by piece.
const (
	textPiece  = 32 << 10
	textMargin = 16 << 10 // examined on both sides of a piece, for secrets across its ends
)

// Reader reads a text in which secrets are overwritten. Each replacement is as
// long as the secret, so that sizes and ranges stay valid.
type Reader struct {
	text   io.ReadSeeker
	size   int64
	masker *Masker
	pos    int64

	buf  []byte // masked
	from int64  // offset of buf
	good int    // valid bytes of buf: secrets after them may be incomplete
	skip int    // bytes of buf before the valid ones
}

// NewReader returns a reader of a text of that size.
func NewReader(text io.ReadSeeker, size int64, m *Masker) *Reader {
	return &Reader{text: text, size: size, masker: m}
}

// Seek implements io.Seeker.
func (t *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += t.pos
	case io.SeekEnd:
		offset += t.size
	}
	if offset < 0 {
		return 0, errors.New("seek in text: position is before the start")
	}
	t.pos = offset
	return offset, nil
}

// Read implements io.Reader.
func (t *Reader) Read(p []byte) (int, error) {
	if t.pos >= t.size {
		return 0, io.EOF
	}
	if at := t.pos - t.from; t.buf == nil || at < int64(t.skip) || at >= int64(t.good) {
		if err := t.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.buf[t.pos-t.from:t.good])
	t.pos += int64(n)
	return n, nil
}

// load masks the piece at pos.
func (t *Reader) load() error {
	from := max(0, t.pos-textMargin)
	to := min(t.size, t.pos+textPiece+textMargin)
	if _, err := t.text.Seek(from, io.SeekStart); err != nil {
		return err
	}
	t.buf = slices.Grow(t.buf[:0], int(to-from))[:to-from]
	if n, err := io.ReadFull(t.text, t.buf); err != nil {
		return fmt.Errorf("read text at %d: %w", from+int64(n), err)
	}
	t.masker.Overwrite(t.buf)
	t.from, t.skip = from, int(t.pos-from)
	t.good = int(min(to, t.pos+textPiece) - from)
	return nil
}
