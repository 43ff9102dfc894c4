package hub

import (
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Limits of reading history. Readers that catch up on one log share blocks that
// were read and encoded: blocks end at multiples of blockLines wherever a
// reader started, so that readers converge.
const (
	blockLines   = 128
	blockContent = 24 << 10 // bytes of lines before encoding; one line alone may be larger
	cacheBytes   = 4 << 20  // bytes of all blocks together
	cacheAge     = 5 * time.Second
	pullsAtOnce  = 4 // concurrent reads; others wait
	idleReaders  = 4 // open log readers kept per log
)

// blockKey identifies a block. Blocks masked with other secrets are different
// blocks.
type blockKey struct {
	topic  topicKey
	after  int64
	masker *redact.Masker
}

// block is a part of a log, encoded once for all readers.
type block struct {
	key    blockKey
	done   chan struct{} // closed when the fields below are set
	frames []byte
	to     int64
	err    error
	at     time.Time
	size   int
}

// history reads earlier lines of logs.
type history struct {
	slots chan struct{} // held while reading and encoding

	mu     sync.Mutex // guards the fields below
	blocks map[blockKey]*block
	order  []*block // finished blocks, oldest first
	bytes  int
}

func newHistory() *history {
	return &history{slots: make(chan struct{}, pullsAtOnce), blocks: map[blockKey]*block{}}
}

// scratch holds the buffers for reading and encoding a batch. They are pooled:
// no goroutine holds one while it waits for a reader.
type scratch struct {
	lines  []agented.LogLine
	frames []byte
	masked []byte
	clock  clock
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratch keeps one huge line from enlarging the pool permanently.
const maxScratch = 1 << 20

func (s *scratch) release() {
	clear(s.lines[:cap(s.lines)]) // they point into a log reader's buffer
	if cap(s.frames) > maxScratch || cap(s.masked) > maxScratch {
		s.frames, s.masked = nil, nil
	}
	scratches.Put(s)
}

// encode appends s.lines as frames to s.frames, and masks secrets that became
// known after a line was written. a may be nil.
func (s *scratch) encode(m *redact.Masker, a Annotator) {
	for i := range s.lines {
		l := &s.lines[i]
		if !m.Empty() {
			s.masked = m.MaskLine(s.masked[:0], l.Content)
			l.Content = s.masked
		}
		s.frames = s.clock.frame(s.frames, l)
		if a != nil {
			s.frames = append(a.Append(s.frames[:len(s.frames)-len(lineEnd)], l), lineEnd...)
		}
	}
}

// read returns the frames of the block after the line after. If there are no
// lines, to is after.
func (h *history) read(t *topic, after int64, m *redact.Masker) (frames []byte, to int64, err error) {
	key := blockKey{t.key(), after, m}
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
	h.cache(b, full)
	return b.frames, b.to, b.err
}

// cache caches a finished block. One that ends at the end of the log would
// differ the next time, so it is not kept.
func (h *history) cache(b *block, full bool) {
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

// trim drops blocks that were read before a time.
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

// openLog is a log reader and its position.
type openLog struct {
	r    *runlog.Reader
	pos  int64
	used time.Time
}

// idleLog returns an idle log reader of t, preferably one at pos, or nil.
func (t *topic) idleLog(pos int64) *openLog {
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
		return nil // other readers resume at these positions
	}
	t.idle[i] = t.idle[n-1]
	t.idle[n-1] = nil
	t.idle = t.idle[:n-1]
	return l
}

// put returns a log reader to the idle ones.
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

// load reads and encodes the block after the line after. full reports whether
// the block is final.
func (t *topic) load(after int64, m *redact.Masker) (frames []byte, to int64, full bool, err error) {
	l := t.idleLog(after)
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
	annotator := t.annotator()
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
		s.encode(m, annotator)
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
