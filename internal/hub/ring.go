package hub

import (
	"sync"
	"time"
)

// Limits of what is kept of a stream for readers that are slightly behind.
// Readers that are further behind read the disk.
const (
	ringChunks = 64
	ringBytes  = 256 << 10
	slabBytes  = 8 << 10 // small chunks share allocations of this size
	ringAge    = 2 * time.Second
)

// chunk is a sequence of frames, encoded once. It contains everything in a
// stream after from up to to, and is immutable.
type chunk struct {
	from, to int64
	data     []byte
	at       time.Time
}

// ring is the most recent part of a stream.
type ring struct {
	mu     sync.RWMutex // guards the fields below; held briefly, never during I/O
	chunks [ringChunks]chunk
	head   int // index of the oldest chunk
	n      int
	bytes  int
	open   bool  // last is known
	last   int64 // last known position
	err    error // why the stream cannot continue

	slab []byte // used only by add
}

// begin sets the current position of the stream.
func (r *ring) begin(last int64) {
	r.mu.Lock()
	r.last, r.open, r.n, r.bytes = last, true, 0, 0
	clear(r.chunks[:])
	r.mu.Unlock()
}

// add appends frames with ids after the last one up to to. It copies frames,
// and must not be called concurrently.
func (r *ring) add(to int64, frames []byte, now time.Time) {
	var data []byte
	if len(frames) > slabBytes/2 {
		data = append(make([]byte, 0, len(frames)), frames...)
	} else {
		if cap(r.slab)-len(r.slab) < len(frames) {
			r.slab = make([]byte, 0, slabBytes)
		}
		from := len(r.slab)
		r.slab = append(r.slab, frames...)
		data = r.slab[from:len(r.slab):len(r.slab)]
	}
	r.mu.Lock()
	for r.n > 0 && (r.n == ringChunks || r.bytes+len(data) > ringBytes) {
		r.drop()
	}
	r.chunks[(r.head+r.n)%ringChunks] = chunk{r.last, to, data, now}
	r.n++
	r.bytes += len(data)
	r.last = to
	r.mu.Unlock()
}

func (r *ring) drop() {
	r.bytes -= len(r.chunks[r.head].data)
	r.chunks[r.head] = chunk{}
	r.head = (r.head + 1) % ringChunks
	r.n--
}

// trim drops chunks that were added before a time. Readers that are that far
// behind find them on disk.
func (r *ring) trim(before time.Time) {
	r.mu.Lock()
	for r.n > 0 && r.chunks[r.head].at.Before(before) {
		r.drop()
	}
	r.mu.Unlock()
}

// fail ends the stream for all readers.
func (r *ring) fail(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
}

// place is the location of a position.
type place int

const (
	waiting place = iota // nothing is known after it
	here                 // the ring has the following frames
	past                 // the following frames are older than the ring
	broken               // the stream has failed
)

// next returns the frames after a position, and the position after them.
func (r *ring) next(after int64) (frames []byte, to int64, at place, err error) {
	r.mu.RLock()
	switch {
	case r.err != nil:
		r.mu.RUnlock()
		return nil, after, broken, r.err
	case !r.open || after >= r.last:
		r.mu.RUnlock()
		return nil, after, waiting, nil
	case r.n == 0 || after < r.chunks[r.head].from:
		r.mu.RUnlock()
		return nil, after, past, nil
	}
	// Most readers want the newest chunk.
	i := r.n - 1
	for i > 0 && r.chunks[(r.head+i)%ringChunks].from > after {
		i--
	}
	c := r.chunks[(r.head+i)%ringChunks]
	r.mu.RUnlock()
	if c.from < after {
		return behind(c.data, after), c.to, here, nil
	}
	return c.data, c.to, here, nil
}

// gather is next with as many frames as fit into buf, which it may use: a
// reader that is a few chunks behind receives them in one write.
func (r *ring) gather(after int64, buf []byte) (frames []byte, to int64, at place, err error) {
	if frames, to, at, err = r.next(after); at != here || cap(buf) == 0 {
		return frames, to, at, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if to >= r.last || r.n == 0 || r.chunks[r.head].from > to {
		return frames, to, at, err
	}
	buf = append(buf[:0], frames...)
	for i := range r.n {
		c := &r.chunks[(r.head+i)%ringChunks]
		if c.from < to {
			continue
		}
		if len(buf)+len(c.data) > cap(buf) {
			break
		}
		buf, to = append(buf, c.data...), c.to
	}
	return buf, to, at, err
}

// end returns the last known position, false while it is unknown.
func (r *ring) end() (int64, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last, r.open
}
