package runlog

import (
	"fmt"

	"github.com/agented/agented"
)

// Reader reads the records of a log in order and follows it while it grows,
// also across a Seal. A Reader must not be used concurrently.
type Reader struct {
	src   source
	c     cursor
	after agented.Seq // records up to this one are skipped
}

// OpenReader opens the log of an execution's folder at its beginning, whether
// it is being written, closed or sealed. It returns NotFound if there is none.
func OpenReader(dir string) (*Reader, error) {
	src, err := openSource(dir)
	if err != nil {
		return nil, err
	}
	return &Reader{src: src, c: cursor{src: src, off: headerSize}}, nil
}

// SeekAfter positions the reader before the first record with a number above
// seq, which need not exist yet.
func (r *Reader) SeekAfter(seq agented.Seq) error {
	r.c.drop()
	seq = min(max(seq, 0), maxSeq)
	t, err := r.src.near(func(e entry) bool { return e.seq <= seq+1 })
	if err != nil {
		return err
	}
	r.c = cursor{src: r.src, off: t.off, seq: t.seq}
	r.after = seq
	return nil
}

// Next appends available records to dst: at most maxLines, and at most maxBytes
// of content unless the first record alone is larger (0 or less: no limit). One
// call returns at most one buffer (64 KiB, about 256 KiB for a sealed log), so
// call it until it appends nothing, which means that there are no more at the
// moment. The Content of the lines is valid until the next call of any method.
//
// An incomplete record, which is being written or was torn by a crash, is not
// an error; the next call checks again. An error means that the rest of the log
// cannot be read: the log or the disk is damaged.
func (r *Reader) Next(dst []agented.LogLine, maxLines, maxBytes int) ([]agented.LogLine, error) {
	had, bytes := len(dst), 0
	for {
		rec, size, v := r.c.peek()
		if v != whole {
			if len(dst) > had {
				// The lines point into the window: the rest of it is for the
				// next call.
				return dst, nil
			}
			var ok bool
			var err error
			if rec, size, ok, err = r.c.peekFilled(); err != nil {
				return dst, err
			}
			if !ok {
				return dst, r.incompleteOrDamaged()
			}
		}
		if rec.seq <= r.after {
			r.c.skip(size)
			continue
		}
		if len(dst) > had && maxBytes > 0 && bytes+len(rec.content) > maxBytes {
			return dst, nil
		}
		dst = append(dst, agented.LogLine{})
		rec.line(&dst[len(dst)-1])
		bytes += len(rec.content)
		r.c.skip(size)
		if maxLines > 0 && len(dst)-had >= maxLines {
			return dst, nil
		}
	}
}

// ReleaseBuffer releases the buffer and reports whether the last call of Next returned
// all available records, so that only an append or a seal can add more. False
// has no meaning. The lines that Next returned become invalid.
func (r *Reader) ReleaseBuffer() bool {
	done := r.src.short() && len(r.c.win) == 0
	r.c.drop()
	return done
}

// incompleteOrDamaged ends a read that found no whole record: without an error if one may
// still come.
func (r *Reader) incompleteOrDamaged() error {
	empty := len(r.c.win) == 0
	r.c.drop()
	if empty || !r.src.beyond(r.c.off) {
		return nil
	}
	// A valid record follows it, so it is not being written. It may have been
	// when it was read: read it once more.
	_, _, ok, err := r.c.peekFilled()
	r.c.drop()
	if err != nil || ok {
		return err
	}
	return fmt.Errorf("run log is damaged at byte %d, after line %d", r.c.off, r.c.seq)
}

// LastSeq returns the number of the last whole record, 0 if there is none. It
// costs one stat if nothing was added since the last call.
func (r *Reader) LastSeq() (agented.Seq, error) {
	r.c.drop()
	t, err := r.src.end()
	if err != nil {
		return 0, err
	}
	return t.seq, nil
}

// Close closes the file and releases the buffers.
func (r *Reader) Close() error {
	r.c.win = nil
	return r.src.close()
}
