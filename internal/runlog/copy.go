package runlog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/agented/agented"
)

// copiedBoot is the boot id of a log that was copied while it was written. It
// matches no machine, so a writer that continues the copy reuses no number that
// a reader of the original may have seen.
const copiedBoot = "copied"

// Copy is a snapshot of a log with whole records, while the original may grow,
// be sealed or be removed.
type Copy struct {
	Name string // file name: log, or log.zst if it is sealed
	Size int64
	io.Reader
	f *os.File
}

// OpenCopy opens the log of an execution's folder for copying. It returns
// NotFound if there is none.
func OpenCopy(dir string) (*Copy, error) {
	src, err := openSource(dir)
	if err != nil {
		return nil, err
	}
	src.release()
	switch src := src.(type) {
	case *sealedLog:
		st, err := src.f.Stat()
		if err != nil {
			src.f.Close()
			return nil, fmt.Errorf("copy run log: %w", err)
		}
		return &Copy{Name: sealedName, Size: st.Size(), Reader: io.NewSectionReader(src.f, 0, st.Size()), f: src.f}, nil
	case *live:
		c, err := src.copy()
		if err != nil {
			src.f.Close()
		}
		return c, err
	}
	panic("runlog: unknown source")
}

func (l *live) copy() (*Copy, error) {
	there, err := l.check()
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, agented.Errorf(agented.NotFound, "there is no log yet")
	}
	end, err := l.end()
	l.release()
	if err != nil {
		return nil, err
	}
	var p [headerSize]byte
	// Read the header after the end, so that it has reserved every number
	// before it.
	if _, err := l.f.ReadAt(p[:], 0); err != nil {
		return nil, fmt.Errorf("copy run log: %w", err)
	}
	if h, err := decodeHeader(p[:]); err == nil && h.reserved != end.seq {
		h.boot = copiedBoot
		copy(p[:], h.append(nil))
	}
	rest := io.NewSectionReader(l.f, headerSize, end.off-headerSize)
	return &Copy{Name: logName, Size: end.off, Reader: io.MultiReader(bytes.NewReader(p[:]), rest), f: l.f}, nil
}

// Close closes the file.
func (c *Copy) Close() error { return c.f.Close() }

// Verify reads a log without a writer completely, and returns its last number
// and its number of records.
func Verify(dir string) (last agented.Seq, records int64, err error) {
	src, err := openSource(dir)
	if err != nil {
		return 0, 0, err
	}
	defer src.close()
	size := int64(-1)
	switch src := src.(type) {
	case *sealedLog:
		size = src.size
	case *live:
		st, err := src.f.Stat()
		if err != nil {
			return 0, 0, fmt.Errorf("verify run log: %w", err)
		}
		if size = st.Size(); src.damaged {
			return 0, 0, fmt.Errorf("verify run log: %w", errBadHeader)
		}
	}
	c := cursor{src: src, off: headerSize}
	for {
		r, err := c.next()
		if err != nil {
			return c.seq, records, err
		}
		if r == nil {
			break
		}
		records++
	}
	if c.off != size {
		return c.seq, records, fmt.Errorf("run log is damaged at byte %d of %d, after line %d in %s", c.off, size, c.seq, filepath.Base(dir))
	}
	if s, ok := src.(*sealedLog); ok && (s.total.seq != c.seq || s.total.lines != records) {
		return c.seq, records, fmt.Errorf("sealed run log claims to end at line %d, but ends at %d", s.total.seq, c.seq)
	}
	return c.seq, records, nil
}
