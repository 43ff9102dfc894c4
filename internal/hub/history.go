package hub

import (
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Bounds of reading the past. Readers that catch up on one log share what was
// read and encoded: blocks end at multiples of blockLines wherever a reader
// started, so that readers meet.
const (
	blockLines   = 128
	blockContent = 24 << 10 // of lines before encoding; one line alone may be larger
	cacheBytes   = 4 << 20  // of all blocks together
	cacheAge     = 5 * time.Second
	pullsAtOnce  = 4 // who reads and encodes at the same time; the rest waits
	idleReaders  = 4 // open log readers kept for a log that is read
)

// blockKey names a block. Blocks that other secrets were masked from are other
// blocks.
type blockKey struct {
	id     agented.ExecutionID
	after  int64
	masker *redact.Masker
}

// block is a stretch of a log, encoded once for all that ask for it.
type block struct {
	key    blockKey
	done   chan struct{} // closed when what follows is set
	frames []byte
	to     int64
	err    error
	at     time.Time
	size   int
}

// history reads the past of logs.
type history struct {
	slots chan struct{} // held while reading and encoding

	mu     sync.Mutex // guards what follows
	blocks map[blockKey]*block
	order  []*block // finished ones, oldest first
	bytes  int
}

func newHistory() *history {
	return &history{slots: make(chan struct{}, pullsAtOnce), blocks: map[blockKey]*block{}}
}

// scratch is what reading and encoding a batch needs. Its buffers are shared by
// all: nobody holds one while waiting for a reader.
type scratch struct {
	lines  []agented.LogLine
	frames []byte
	masked []byte
	clock  clock
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratch keeps a single huge line from making the pool fat for ever.
const maxScratch = 1 << 20

func (s *scratch) release() {
	clear(s.lines[:cap(s.lines)]) // they point into a log reader's buffer
	if cap(s.frames) > maxScratch || cap(s.masked) > maxScratch {
		s.frames, s.masked = nil, nil
	}
	scratches.Put(s)
}

// encode appends s.lines as frames to s.frames. Secrets that became known after
// a line was written are masked here.
func (s *scratch) encode(m *redact.Masker) {
	for i := range s.lines {
		l := &s.lines[i]
		if !m.Empty() {
			s.masked = m.MaskLine(s.masked[:0], l.Content)
			l.Content = s.masked
		}
		s.frames = s.clock.frame(s.frames, l)
	}
}

// read returns the frames of the block behind after. When the log has nothing
// there, to is after.
func (h *history) read(t *topic, after int64, m *redact.Masker) (frames []byte, to int64, err error) {
	key := blockKey{t.id, after, m}
	h.mu.Lock()
	if b := h.blocks[key]; b != nil {
		h.mu.Unlock()
		<-b.done
		return b.frames, b.to, b.err
	}
	b := &block{key: key, done: make(chan struct{}), to: after}
	h.blocks[key] = b
	h.mu.Unlock()

	h.slots <- struct{}{}
	full := false
	b.frames, b.to, full, b.err = t.load(after, m)
	<-h.slots
	close(b.done)
	h.keep(b, full)
	return b.frames, b.to, b.err
}

// keep puts a finished block into the cache. One that the end of the log cut
// short would not be the same block the next time, so it is not kept.
func (h *history) keep(b *block, full bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !full || b.err != nil {
		delete(h.blocks, b.key)
		return
	}
	b.at, b.size = time.Now(), len(b.frames)
	h.order = append(h.order, b)
	h.bytes += b.size
	for h.bytes > cacheBytes {
		h.drop()
	}
}

func (h *history) drop() {
	b := h.order[0]
	h.order[0] = nil
	h.order = h.order[1:]
	h.bytes -= b.size
	delete(h.blocks, b.key)
}

// trim lets go of blocks that were read before a time.
func (h *history) trim(before time.Time) {
	h.mu.Lock()
	for len(h.order) > 0 && h.order[0].at.Before(before) {
		h.drop()
	}
	if len(h.order) == 0 {
		h.order = nil
	}
	h.mu.Unlock()
}

// openLog is a log reader and where it stands.
type openLog struct {
	r    *runlog.Reader
	pos  int64
	used time.Time
}

// take returns an idle log reader of t, best one that stands at pos, or nil.
func (t *topic) take(pos int64) *openLog {
	t.idleMu.Lock()
	defer t.idleMu.Unlock()
	n := len(t.idle)
	if n == 0 {
		return nil
	}
	i := 0
	for j, l := range t.idle {
		if l.pos == pos {
			i = j
			break
		}
	}
	l := t.idle[i]
	if l.pos != pos && n < idleReaders {
		return nil // others go on where these stand
	}
	t.idle[i] = t.idle[n-1]
	t.idle[n-1] = nil
	t.idle = t.idle[:n-1]
	return l
}

// put gives a log reader back.
func (t *topic) put(l *openLog) {
	l.used = time.Now()
	t.idleMu.Lock()
	if !t.ended && len(t.idle) < idleReaders {
		t.idle = append(t.idle, l)
		l = nil
	}
	t.idleMu.Unlock()
	if l != nil {
		l.r.Close()
	}
}

// closeIdle closes the log readers that were not used since a time.
func (t *topic) closeIdle(since time.Time, ended bool) {
	var old []*openLog
	t.idleMu.Lock()
	t.ended = t.ended || ended
	kept := t.idle[:0]
	for _, l := range t.idle {
		if ended || l.used.Before(since) {
			old = append(old, l)
		} else {
			kept = append(kept, l)
		}
	}
	clear(t.idle[len(kept):])
	t.idle = kept
	t.idleMu.Unlock()
	for _, l := range old {
		l.r.Close()
	}
}

// load reads and encodes the block behind after. full says that it will be the
// same whenever it is read again.
func (t *topic) load(after int64, m *redact.Masker) (frames []byte, to int64, full bool, err error) {
	l := t.take(after)
	if l == nil {
		r, err := runlog.OpenReader(t.dir)
		if err != nil {
			return nil, after, false, err
		}
		l = &openLog{r: r, pos: -1}
	}
	if l.pos != after {
		if err := l.r.SeekAfter(agented.Seq(after)); err != nil {
			l.r.Close()
			return nil, after, false, err
		}
		l.pos = after
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	end := (after/blockLines + 1) * blockLines
	content := 0
	to = after
	s.frames = s.frames[:0]
	for to < end && content < blockContent {
		s.lines, err = l.r.Next(s.lines[:0], int(end-to), blockContent-content)
		if err != nil {
			l.r.Close()
			return nil, after, false, err
		}
		if len(s.lines) == 0 {
			break
		}
		for i := range s.lines {
			content += len(s.lines[i].Content) + 1
		}
		s.encode(m)
		to = int64(s.lines[len(s.lines)-1].Seq)
	}
	l.pos = to
	t.put(l)
	full = to >= end || content >= blockContent
	return append([]byte(nil), s.frames...), to, full, nil
}

func (h *history) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.order) == 0
}
