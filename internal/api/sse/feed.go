package sse

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/hub"
)

// Feeds wakes the streams that read numbered rows from the store: inboxes and
// conversations. A stream is a position; later rows are read from the store, so
// a slow reader uses constant memory.
type Feeds struct {
	mu     sync.Mutex           // guards the fields below
	wake   map[string]*feedWake // feeds that streams are reading
	closed bool
	drain  chan struct{} // closed when the server is about to stop

	notes [maxNotes]feedNote // ring of the latest notes
	noted int                // number of notes so far
}

// feedWake wakes the streams of one feed.
type feedWake struct {
	next    chan struct{} // closed at the next change
	readers int
}

// maxNotes limits the stored notes. A stream that falls behind by more misses
// some; their content is also in the store.
const maxNotes = 1024

// feedNote is an event for the current readers of a feed. It has no id.
type feedNote struct {
	name  string
	frame string
}

// NewFeeds returns feeds without readers.
func NewFeeds() *Feeds {
	return &Feeds{wake: map[string]*feedWake{}, drain: make(chan struct{})}
}

// Notify wakes the readers of a feed.
func (f *Feeds) Notify(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.wake[name]; w != nil {
		close(w.next)
		w.next = make(chan struct{})
	}
}

// Note sends an event that is not a row of the feed to its current readers.
func (f *Feeds) Note(name, event string, data []byte) {
	f.mu.Lock()
	f.notes[f.noted%maxNotes] = feedNote{name, "event: " + event + "\ndata: " + string(data) + "\n\n"}
	f.noted++
	f.mu.Unlock()
	f.Notify(name)
}

// since appends the notes of a feed after the first n, and returns the number
// of notes so far.
func (f *Feeds) since(name string, n int, dst []byte) ([]byte, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n = min(max(n, f.noted-maxNotes), f.noted); n < f.noted; n++ {
		if one := &f.notes[n%maxNotes]; one.name == name {
			dst = append(dst, one.frame...)
		}
	}
	return dst, n
}

// join counts a reader of a feed until leave is called. A feed has an entry
// while it has readers.
func (f *Feeds) join(name string) (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.wake[name]
	if w == nil {
		w = &feedWake{next: make(chan struct{})}
		f.wake[name] = w
	}
	w.readers++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if w.readers--; w.readers == 0 {
			delete(f.wake, name)
		}
	}
}

// next returns a channel that is closed at the next change of a feed that the
// caller has joined. Call it before reading, so that no change is missed.
func (f *Feeds) next(name string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wake[name].next
}

// End ends all current and future streams.
func (f *Feeds) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.drain)
	}
}

// Intervals of a feed's stream.
const (
	feedHeartbeat = 10 * time.Second
	feedLook      = 30 * time.Second // polls for rows written by other processes, which wake no stream
)

// FeedBatch is the number of rows that a feed's stream should read at once.
const FeedBatch = 200

// ServeFeed serves the stream of a feed. more appends frames after the position
// after, and returns the new position; the same position means that there are
// no more yet.
func (s *Streams) ServeFeed(w http.ResponseWriter, r *http.Request, name string, after int64,
	more func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error),
) {
	// Read once before the first byte, so that an error becomes a problem
	// response.
	_, notes := s.Feeds.since(name, math.MaxInt, nil)
	defer s.Feeds.join(name)()
	wake := s.Feeds.next(name)
	frames, at, err := more(r.Context(), nil, after)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, sink hub.Sink) error {
		beat := time.NewTicker(feedHeartbeat)
		defer beat.Stop()
		look := time.NewTicker(feedLook)
		defer look.Stop()
		frames = append([]byte("retry: 1000\n\n"), frames...)
		for {
			if len(frames) > 0 {
				if err := sink.Write(frames); err != nil {
					return err
				}
				if err := sink.Flush(); err != nil {
					return err
				}
			}
			if at == after {
				select {
				case <-ctx.Done():
					return nil
				case <-s.Feeds.drain:
					return hub.ErrDraining
				case <-wake:
				case <-look.C:
				case <-beat.C:
					frames = append(frames[:0], ": heartbeat\n\n"...)
					continue
				}
			}
			select {
			case <-s.Feeds.drain:
				return hub.ErrDraining
			default:
			}
			after = at
			wake = s.Feeds.next(name)
			if frames, at, err = more(ctx, frames[:0], after); err != nil {
				return err
			}
			frames, notes = s.Feeds.since(name, notes, frames)
		}
	})
}

// AppendEvent appends one event with an id. data must be one line.
func AppendEvent(dst []byte, id int64, event string, data []byte) []byte {
	dst = fmt.Appendf(dst, "id: %d\nevent: %s\ndata: ", id, event)
	dst = append(dst, data...)
	return append(dst, "\n\n"...)
}

// Open returns the number of feeds that have readers.
func (f *Feeds) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.wake)
}
