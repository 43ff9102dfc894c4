package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiter slows guessing down: so many attempts at once, then one every while,
// for each key. It forgets keys that have been quiet, and holds a bounded
// number of them.
type limiter struct {
	mu  sync.Mutex // guards all
	all map[string]*bucket
}

type bucket struct {
	tokens *rate.Limiter
	seen   time.Time
}

const (
	maxBuckets  = 20000
	bucketQuiet = 15 * time.Minute // longer than any bucket takes to fill up again
)

func newLimiter() *limiter { return &limiter{all: map[string]*bucket{}} }

// allow takes one attempt from the key's bucket, which holds burst and refills
// by one every. It says how long to wait when there is none.
func (l *limiter) allow(key string, burst int, every time.Duration, now time.Time) (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.all[key]
	if b == nil {
		if len(l.all) >= maxBuckets {
			l.sweep(now)
		}
		b = &bucket{tokens: rate.NewLimiter(rate.Every(every), burst)}
		l.all[key] = b
	}
	b.seen = now
	r := b.tokens.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return false, wait
	}
	return true, 0
}

// forget fills a key's bucket: the asker proved who they are.
func (l *limiter) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, key)
}

// sweep drops quiet buckets, and when that frees nothing, all: a limit that
// starts anew is better than memory without one.
func (l *limiter) sweep(now time.Time) {
	for key, b := range l.all {
		if now.Sub(b.seen) > bucketQuiet {
			delete(l.all, key)
		}
	}
	if len(l.all) >= maxBuckets {
		clear(l.all)
	}
}
