package shim

import (
	"bytes"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// quiet is how long an unfinished line may wait before what there is of it
// becomes a record: a prompt or a progress bar shall be seen.
const quiet = time.Second

// batch collects records for one append.
type batch struct {
	attempt int
	recs    []runlog.Record
	arena   []byte // the contents, one behind the other
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

// size is about how much memory and log the batch takes.
func (b *batch) size() int { return len(b.arena) + 64*len(b.recs) }

// done forgets the first n records.
func (b *batch) done(n int) {
	if n < len(b.recs) {
		b.recs = append(b.recs[:0], b.recs[n:]...)
		return
	}
	clear(b.recs)
	b.recs, b.arena = b.recs[:0], b.arena[:0]
	if cap(b.arena) > 4*batchBytes || cap(b.recs)*64 > 4*batchBytes {
		b.relax()
	}
}

// relax lets go of the room that an empty batch keeps for the next one.
func (b *batch) relax() {
	if len(b.recs) == 0 {
		b.recs, b.arena = nil, nil
	}
}

// splitter makes records of one stream's bytes. It keeps what has no end yet.
type splitter struct {
	stream agented.Stream
	out    *batch
	mask   *redact.Stream
	raw    bool // offsets mean something: the raw bytes are in a file

	buf   []byte // raw bytes that are in no record yet
	start int64  // offset of buf[0] in the raw stream
	inner bool   // a piece of the line at hand is a record already
	last  time.Time
	asked bool // quiet was looked at since the last byte
}

func newSplitter(out *batch, s agented.Stream, m *redact.Masker, raw bool) *splitter {
	return &splitter{stream: s, out: out, mask: m.NewStream(), raw: raw}
}

// resume tells a fresh splitter that the stream was read up to start before,
// and whether that is in the middle of a line.
func (s *splitter) resume(start int64, inner bool) { s.start, s.inner = start, inner }

// next is the offset behind everything that feed was given.
func (s *splitter) next() int64 { return s.start + int64(len(s.buf)) }

// feed takes bytes that were read at the time given.
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

// shorten cuts what is longer than a record can be.
func (s *splitter) shorten(at time.Time) {
	for len(s.buf) > runlog.MaxLine {
		if s.piece(s.buf[:runlog.MaxLine], at) == 0 {
			return // all of it may yet be a secret; that has a bound
		}
	}
}

// piece makes a record of as much of the bytes as can be told, which are the
// first of buf, and returns how much that was.
func (s *splitter) piece(b []byte, at time.Time) int {
	from := len(s.out.arena)
	out, n := s.mask.Mask(s.out.arena, b, false)
	if n == 0 {
		return 0
	}
	s.out.arena = out
	before := s.start
	s.start += int64(n)
	s.emit(at, from, before, false, false)
	s.inner = true
	rest := copy(s.buf, s.buf[n:])
	s.buf = s.buf[:rest]
	return n
}

// finish makes a record of the rest of a line. eol is how long its end is: 1,
// or 0 when the stream ended instead.
func (s *splitter) finish(line []byte, at time.Time, eol int) {
	from := len(s.out.arena)
	s.out.arena, _ = s.mask.Mask(s.out.arena, line, true)
	before := s.start
	s.start += int64(len(line) + eol)
	s.emit(at, from, before, true, eol == 0)
	s.inner = false
	if s.buf = s.buf[:0]; cap(s.buf) > 64<<10 {
		s.buf = nil
	}
}

// emit adds the record whose content is the arena from there on. A mask may be
// longer than what it hides; then one record becomes two, of which only the
// last has the offset behind its bytes.
func (s *splitter) emit(at time.Time, from int, before int64, last, noEOL bool) {
	for len(s.out.arena)-from > runlog.MaxLine {
		rest := bytes.Clone(s.out.arena[from+runlog.MaxLine:])
		s.out.arena = s.out.arena[:from+runlog.MaxLine]
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

// quietAt is when the line at hand will have been quiet for long enough; zero
// if there is none, or nothing more can be told of it.
func (s *splitter) quietAt() time.Time {
	if len(s.buf) == 0 || s.asked {
		return time.Time{}
	}
	return s.last.Add(quiet)
}

// rest makes a record of an unfinished line that has been quiet.
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

// end makes a record of what is left when the stream is over.
func (s *splitter) end(at time.Time) {
	if len(s.buf) > 0 || s.inner {
		s.finish(s.buf, at, 0)
	}
}

// skip drops the line at hand's end: the stream goes on somewhere else.
func (s *splitter) restart(at time.Time, start int64) {
	s.end(at)
	s.start = start
}
