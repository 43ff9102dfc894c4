package api

import (
	"fmt"
	"testing"
	"time"
)

func TestALimitRefillsAndForgets(t *testing.T) {
	t.Parallel()
	l, now := newLimiter(), time.Unix(1000, 0)
	take := func(key string) bool {
		ok, wait := l.allow(key, 3, 10*time.Second, now)
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
	now = now.Add(10 * time.Second) // refused attempts must not have used this one up
	if !take("a") || take("a") {
		t.Error("after the refill there is one attempt")
	}
	l.forget("a")
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
		l.allow(fmt.Sprint(i), 1, time.Second, now)
	}
	if len(l.all) > maxBuckets {
		t.Errorf("%d buckets", len(l.all))
	}
}

func TestALoginLeadsToAPathOfThisServerOnly(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "/", "/": "/", "/docs": "/docs", "/a?b=c#d": "/a?b=c#d", "docs": "/", "//evil": "/", "/\\evil": "/", "\\/evil": "/",
		"http://evil": "/", "///evil": "/", "/\t/evil": "/", "javascript:alert(1)": "/", "/login": "/", "/login?next=/x": "/", "/\n/evil": "/",
	} {
		if got := nextPath(in); got != want {
			t.Errorf("%q leads to %q, want %q", in, got, want)
		}
	}
}

func FuzzALoginNeverLeadsElsewhere(f *testing.F) {
	for _, s := range []string{"/docs", "//evil", "/\\evil", "http:evil", "/%2f/evil", "/ /evil"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got := nextPath(next)
		if got[0] != '/' || len(got) > 1 && (got[1] == '/' || got[1] == '\\') {
			t.Errorf("%q leads to %q", next, got)
		}
	})
}

func FuzzARequestIDFromOutsideIsHarmless(f *testing.F) {
	f.Add("trace-1")
	f.Add("a b")
	f.Fuzz(func(t *testing.T, id string) {
		if !saneID(id) {
			return
		}
		for _, c := range id {
			if c <= ' ' || c >= 0x7f || c == '"' {
				t.Errorf("%q passed", id)
			}
		}
	})
}
