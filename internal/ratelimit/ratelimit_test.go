package ratelimit

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter_refill(t *testing.T) {
	t.Parallel()
	l, now := New(), time.Unix(1000, 0)
	take := func(key string) bool {
		ok, wait := l.Allow(key, 3, 10*time.Second, now)
		if ok == (wait > 0) {
			t.Errorf("ok=%v with a wait of %v", ok, wait)
		}
		return ok
	}
	for i := range 3 {
		if !take("a") {
			t.Fatalf("attempt %d of 3 was refused", i+1)
		}
	}
	for range 2 {
		if take("a") {
			t.Error("a fourth attempt passed")
		}
	}
	if !take("b") {
		t.Error("another key shares the bucket")
	}
	now = now.Add(10 * time.Second) // rejected attempts must not have used this one up
	if !take("a") || take("a") {
		t.Error("after the refill there is one attempt")
	}
	l.Forget("a")
	passed := 0
	for range 4 {
		if take("a") {
			passed++
		}
	}
	if passed != 3 {
		t.Errorf("a forgotten key has %d attempts, want 3", passed)
	}
	for i := range maxBuckets + 10 {
		l.Allow(fmt.Sprint(i), 1, time.Second, now)
	}
	if l.Len() > maxBuckets || l.used.Len() != l.Len() {
		t.Errorf("%d keys, %d of them in order", l.Len(), l.used.Len())
	}
}

func TestLimiter_eviction(t *testing.T) {
	t.Parallel()
	l, now := New(), time.Unix(1000, 0)
	guess := func(key string) bool {
		ok, _ := l.Allow(key, 1, time.Hour, now)
		return ok
	}
	guess("blocked")
	for i := range 3 * maxBuckets {
		guess(fmt.Sprint(i))
		if i%1000 == 0 && guess("blocked") {
			t.Fatalf("a limit in use was dropped for new keys, after %d", i)
		}
	}
	if l.Len() != maxBuckets {
		t.Errorf("%d keys, want %d", l.Len(), maxBuckets)
	}
	if guess(fmt.Sprint(3*maxBuckets-1)) || !guess("0") {
		t.Error("another key than the one used longest ago was evicted")
	}
}
