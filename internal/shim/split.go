package shim

import (
	"bytes"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// quiet is how long an incomplete line may wait until its content becomes a record, so that
// prompts and progress bars are visible.
const quiet = time.Second

// batch collects records for one append.
type batch struct {
	attempt int
	recs    []runlog.Record
	arena   []byte // the contents, concatenated

	keep     bool           // keep the text of masked records
	unmasked []unmaskedText // in the order of recs
}

func (b *batch) add(at time.Time, s agented.Stream, part agented.Part, noEOL bool, from int, rawEnd int64) {
	b.recs = append(b.recs, runlog.Record{
		LogLine: agented.LogLine{
			At: at, Attempt: b.attempt, Stream: s, Part: part, NoEOL: noEOL,
			Content: b.arena[from:len(b.arena):len(b.arena)],
		},
		RawEnd: rawEnd,
	})
}

// masked keeps the printed text of the next record if it differs from the record's
// content, which is the arena from the given offset.
func (b *batch) masked(printed []byte, from int) {
	if b.keep && !bytes.Equal(printed, b.arena[from:]) {
		b.unmasked = append(b.unmasked, unmaskedText{len(b.recs), bytes.Clone(printed)})
	}
}

// size returns about how much memory and log space the batch needs.
func (b *batch) size() int { return len(b.arena) + 64*len(b.recs) }

// done removes the first n records.
func (b *batch) done(n int) {
	if n < len(b.recs) {
		b.recs = append(b.recs[:0], b.recs[n:]...)
		b.unmasked = slices.DeleteFunc(b.unmasked, func(u unmaskedText) bool { return u.rec < n })
		for i := range b.unmasked {
			b.unmasked[i].rec -= n
		}
		return
	}
	clear(b.recs)
	b.recs, b.arena, b.unmasked = b.recs[:0], b.arena[:0], nil
	if cap(b.arena) > 4*batchBytes || cap(b.recs)*64 > 4*batchBytes {
		b.relax()
	}
}

// relax frees surplus memory of an empty batch.
func (b *batch) relax() {
	if len(b.recs) == 0 {
		b.recs, b.arena = nil, nil
	}
}

// splitter splits one stream into records and keeps the incomplete line.
type splitter struct {
	stream agented.Stream
	out    *batch
	mask   *redact.Stream
	raw    bool // offsets are valid, because the raw bytes are in a file

	buf   []byte // raw bytes that are in no record yet
	start int64  // offset of buf[0] in the raw stream
	inner bool   // a piece of the current line is already a record
	last  time.Time
	asked bool // rest was called since the last byte
}

func newSplitter(out *batch, s agented.Stream, m *redact.Masker, raw bool) *splitter {
	return &splitter{stream: s, out: out, mask: m.NewStream(), raw: raw}
}

// resume sets a new splitter to a stream that was already read up to start; inner is true if that
// is within a line.
func (s *splitter) resume(start int64, inner bool) { s.start, s.inner = start, inner }

// next returns the offset after all bytes passed to feed.
func (s *splitter) next() int64 { return s.start + int64(len(s.buf)) }

// feed adds bytes that were read at the given time.
func (s *splitter) feed(data []byte, at time.Time) {
	if len(data) == 0 {
		return
	}
	s.last, s.asked = at, false
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			break
		}
		line := data[:end]
		if len(s.buf) > 0 {
			s.buf = append(s.buf, line...)
			s.shorten(at)
			line = s.buf
		} else if len(line) > runlog.MaxLine {
			s.buf = append(s.buf, line...)
			s.shorten(at)
			line = s.buf
		}
		s.finish(line, at, 1)
		data = data[end+1:]
	}
	if len(data) > 0 {
		s.buf = append(s.buf, data...)
		s.shorten(at)
	}
}

// shorten cuts a line that is longer than a record can be.
func (s *splitter) shorten(at time.Time) {
	for len(s.buf) > runlog.MaxLine {
		if s.piece(s.buf[:runlog.MaxLine], at) == 0 {
			return // all of it may still be part of a secret; the size is bounded
		}
	}
}

// piece makes a record of as many of the first bytes of buf as can be masked reliably, and
// returns their number.
func (s *splitter) piece(b []byte, at time.Time) int {
	from := len(s.out.arena)
	out, n := s.mask.Mask(s.out.arena, b, false)
	if n == 0 {
		return 0
	}
	s.out.arena = out
	s.out.masked(b[:n], from)
	before := s.start
	s.start += int64(n)
	s.emit(at, from, before, false, false)
	s.inner = true
	rest := copy(s.buf, s.buf[n:])
	s.buf = s.buf[:rest]
	return n
}

// finish makes a record of the rest of a line. eol is the length of its end: 1, or 0 at the end
// of the stream.
func (s *splitter) finish(line []byte, at time.Time, eol int) {
	from := len(s.out.arena)
	s.out.arena, _ = s.mask.Mask(s.out.arena, line, true)
	s.out.masked(line, from)
	before := s.start
	s.start += int64(len(line) + eol)
	s.emit(at, from, before, true, eol == 0)
	s.inner = false
	if s.buf = s.buf[:0]; cap(s.buf) > 64<<10 {
		s.buf = nil
	}
}

// emit adds a record whose content is the arena from offset from. A mask may be longer than the
// masked text; then one record becomes two, and only the last has the offset after its bytes.
func (s *splitter) emit(at time.Time, from int, before int64, last, noEOL bool) {
	for len(s.out.arena)-from > runlog.MaxLine {
		cut := from + runlog.MaxLine
		for cut > from+runlog.MaxLine-utf8.UTFMax && !utf8.RuneStart(s.out.arena[cut]) {
			cut--
		}
		rest := bytes.Clone(s.out.arena[cut:])
		s.out.arena = s.out.arena[:cut]
		s.out.add(at, s.stream, s.part(false), false, from, s.offset(before))
		s.inner = true
		from = len(s.out.arena)
		s.out.arena = append(s.out.arena, rest...)
	}
	s.out.add(at, s.stream, s.part(last), noEOL, from, s.offset(s.start))
}

func (s *splitter) offset(n int64) int64 {
	if !s.raw {
		return 0
	}
	return n
}

func (s *splitter) part(last bool) agented.Part {
	switch {
	case s.inner && last:
		return agented.PartLast
	case s.inner:
		return agented.PartMiddle
	case last:
		return agented.PartWhole
	}
	return agented.PartFirst
}

// quietAt returns when the current line will have been quiet long enough. It returns the zero
// time if there is no line, or no more of it can be emitted.
func (s *splitter) quietAt() time.Time {
	if len(s.buf) == 0 || s.asked {
		return time.Time{}
	}
	return s.last.Add(quiet)
}

// rest makes a record of an incomplete line that has been quiet.
func (s *splitter) rest(at time.Time) {
	if due := s.quietAt(); due.IsZero() || at.Before(due) {
		return
	}
	s.asked = true
	s.piece(s.buf, s.last)
	if cap(s.buf) > 64<<10 {
		s.buf = bytes.Clone(s.buf)
	}
}

// end makes a record of the remaining bytes at the end of the stream.
func (s *splitter) end(at time.Time) {
	if len(s.buf) > 0 || s.inner {
		s.finish(s.buf, at, 0)
	}
}

// restart drops the end of the current line, because the stream continues at another offset.
func (s *splitter) restart(at time.Time, start int64) {
	s.end(at)
	s.start = start
}
