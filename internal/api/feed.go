package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/agented/agented/internal/hub"
)

// feeds wakes the streams that read numbered rows from the store: inboxes and
// conversations. A stream is a position; what is behind it is read from the
// store, so a slow reader costs nothing that grows.
type feeds struct {
	mu     sync.Mutex               // guards what follows
	wake   map[string]chan struct{} // closed at the next change; only of what somebody reads
	closed bool
	drain  chan struct{} // closed when the server is about to stop

	notes [maxNotes]feedNote // the last of them
	noted int                // how many there have been
}

// maxNotes bounds what is remembered of notes. A stream that is behind by more
// misses some; what they are about is in the store.
const maxNotes = 1024

// feedNote is an event for whoever reads a feed at the moment. It has no id.
type feedNote struct {
	name  string
	frame string
}

func newFeeds() *feeds {
	return &feeds{wake: map[string]chan struct{}{}, drain: make(chan struct{})}
}

// tell wakes who reads what has the name.
func (f *feeds) tell(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.wake[name]; c != nil {
		close(c)
		delete(f.wake, name)
	}
}

// note tells who reads what has the name of something that is no row of it.
func (f *feeds) note(name, event string, data []byte) {
	f.mu.Lock()
	f.notes[f.noted%maxNotes] = feedNote{name, "event: " + event + "\ndata: " + string(data) + "\n\n"}
	f.noted++
	f.mu.Unlock()
	f.tell(name)
}

// since appends the notes of a name behind the first n, and returns how many
// notes there have been.
func (f *feeds) since(name string, n int, dst []byte) ([]byte, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n = min(max(n, f.noted-maxNotes), f.noted); n < f.noted; n++ {
		if one := &f.notes[n%maxNotes]; one.name == name {
			dst = append(dst, one.frame...)
		}
	}
	return dst, n
}

// next is closed at the next change. Whoever asks before it reads misses
// nothing.
func (f *feeds) next(name string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.wake[name]
	if c == nil {
		c = make(chan struct{})
		f.wake[name] = c
	}
	return c
}

// end ends all streams, and those that begin from now on.
func (f *feeds) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.drain)
	}
}

// Times of a feed's stream.
const (
	feedHeartbeat = 10 * time.Second
	feedLook      = 30 * time.Second // what another process wrote wakes nobody here
	feedBatch     = 200
)

// feed answers with the stream of a feed. more appends the frames behind after,
// as many as it likes, and returns the position behind them; the same position
// means that there are no more yet.
func (s *Server) feed(w http.ResponseWriter, r *http.Request, name string, after int64,
	more func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error),
) {
	// Read once before the first byte, so that what is wrong is a problem.
	_, notes := s.feeds.since(name, math.MaxInt, nil)
	wake := s.feeds.next(name)
	frames, at, err := more(r.Context(), nil, after)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.streams.stream(w, r, func(ctx context.Context, sink hub.Sink) error {
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
				case <-s.feeds.drain:
					return hub.ErrDraining
				case <-wake:
				case <-look.C:
				case <-beat.C:
					frames = append(frames[:0], ": heartbeat\n\n"...)
					continue
				}
			}
			select {
			case <-s.feeds.drain:
				return hub.ErrDraining
			default:
			}
			after = at
			wake = s.feeds.next(name)
			if frames, at, err = more(ctx, frames[:0], after); err != nil {
				return err
			}
			frames, notes = s.feeds.since(name, notes, frames)
		}
	})
}

// appendEvent appends one event with an id to frames. data is one line.
func appendEvent(dst []byte, id int64, event string, data []byte) []byte {
	dst = fmt.Appendf(dst, "id: %d\nevent: %s\ndata: ", id, event)
	dst = append(dst, data...)
	return append(dst, "\n\n"...)
}
