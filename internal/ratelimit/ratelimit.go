// Package ratelimit limits how often a caller may try something, such as a
// password.
package ratelimit

import (
	lru "container/list"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limiter is a rate limiter for guessing: a burst of attempts, then one per
// interval, for each key. Its memory is limited: keys are stored as hashes, and
// when there are maxBuckets of them, a new one replaces the least recently
// used.
type Limiter struct {
	mu   sync.Mutex // guards the fields below
	all  map[limitKey]*lru.Element
	used lru.List // of *bucket, the most recently used first
}

// limitKey is the hash of a key, so that the length of a caller's input does
// not matter.
type limitKey [16]byte

type bucket struct {
	key    limitKey
	tokens *rate.Limiter
}

// maxBuckets limits the keys of one limiter.
const maxBuckets = 20000

// New returns a limiter without keys.
func New() *Limiter { return &Limiter{all: map[limitKey]*lru.Element{}} }

func hashLimitKey(key string) limitKey {
	sum := sha256.Sum256([]byte(key))
	return limitKey(sum[:16])
}

// Allow takes one attempt from the key's bucket, which holds burst attempts and
// refills one every interval. If none is left, it returns how long to wait.
func (l *Limiter) Allow(key string, burst int, every time.Duration, now time.Time) (bool, time.Duration) {
	hash := hashLimitKey(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.all[hash]
	if e == nil {
		if len(l.all) >= maxBuckets {
			oldest := l.used.Back()
			delete(l.all, l.used.Remove(oldest).(*bucket).key)
		}
		e = l.used.PushFront(&bucket{key: hash, tokens: rate.NewLimiter(rate.Every(every), burst)})
		l.all[hash] = e
	} else {
		l.used.MoveToFront(e)
	}
	r := e.Value.(*bucket).tokens.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return false, wait
	}
	return true, 0
}

// Forget refills a key's bucket after the caller has been authenticated.
func (l *Limiter) Forget(key string) {
	hash := hashLimitKey(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.all[hash]; e != nil {
		l.used.Remove(e)
		delete(l.all, hash)
	}
}

// Len returns the number of stored keys.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// Network returns the network by which callers are limited: the address, and
// for IPv6 its /64, which one customer controls.
func Network(ip netip.Addr) string {
	if !ip.IsValid() {
		return "unix"
	}
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
