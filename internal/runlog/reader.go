package runlog

import (
	"fmt"

	"github.com/agented/agented"
)

// Reader reads the records of a log in order and follows it while it grows. It
// goes on over a Seal without noticing. A Reader is for one goroutine at a
// time.
type Reader struct {
	src   source
	c     cursor
	after agented.Seq // records up to this one are skipped
}

// OpenReader opens the log of an execution's folder, whether it is being
// written, closed or sealed, at its beginning. The error is NotFound when there
// is none.
func OpenReader(dir string) (*Reader, error) {
	src, err := openSource(dir)
	if err != nil {
		return nil, err
	}
	return &Reader{src: src, c: cursor{src: src, off: headerSize}}, nil
}

// SeekAfter makes the next record that Next returns the first with a number
// above seq, also when it is not written yet.
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

// Next appends records to dst: what is there now, at most maxLines, and at most
// maxBytes of content unless the first record alone is larger (0 or less: no
// bound). One call returns no more than one buffer holds (64 KiB, of a sealed
// log about 256 KiB), so call it until it appends nothing: that means there is
// no more at this moment. The Content of the lines is valid until the next call
// of any method.
//
// The end of a record that is just being written, or was torn by a crash, is
// not an error; the next call looks again. An error means that the log cannot
// be read on: it is damaged, or the disk is.
func (r *Reader) Next(dst []agented.LogLine, maxLines, maxBytes int) ([]agented.LogLine, error) {
	had, bytes := len(dst), 0
	for {
		rec, size, v := r.c.peek()
		if v != whole {
			if len(dst) > had {
				// The lines point into the window: what is behind it is for the next call.
				return dst, nil
			}
			var ok bool
			var err error
			if rec, size, ok, err = r.c.look(); err != nil {
				return dst, err
			}
			if !ok {
				return dst, r.stuck()
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

// Rest gives the buffer back and reports whether the last call of Next returned
// all that was there: only an append, or a seal, can bring more. False says
// nothing. The lines that Next returned are not valid any more.
func (r *Reader) Rest() bool {
	done := r.src.short() && len(r.c.win) == 0
	r.c.drop()
	return done
}

// stuck ends a look that found no whole record: with no error if one may still
// come.
func (r *Reader) stuck() error {
	empty := len(r.c.win) == 0
	r.c.drop()
	if empty || !r.src.beyond(r.c.off) {
		return nil
	}
	// There is more behind it, so it is not being written. It may have been when
	// it was read: look once more.
	_, _, ok, err := r.c.look()
	r.c.drop()
	if err != nil || ok {
		return err
	}
	return fmt.Errorf("run log is damaged at byte %d, behind line %d", r.c.off, r.c.seq)
}

// LastSeq returns the number of the last whole record at this moment, 0 if
// there is none. It costs a stat when nothing was added since the last call.
func (r *Reader) LastSeq() (agented.Seq, error) {
	r.c.drop()
	t, err := r.src.end()
	if err != nil {
		return 0, err
	}
	return t.seq, nil
}

// Close gives the file and the buffers back.
func (r *Reader) Close() error {
	r.c.win = nil
	return r.src.close()
}
