package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/ratelimit"
)

func TestLimiter_counts_address_first(t *testing.T) {
	t.Parallel()
	limited := 0
	s := New(Options{LoginEnded: func(outcome string) {
		if outcome == LoginLimited {
			limited++
		}
	}})
	try := func(from, name string) error {
		return s.checkRate(Client{Network: ratelimit.Network(netip.MustParseAddr(from))}, "login", name)
	}
	long := strings.Repeat("n", 60_000)
	for i := range 2000 {
		err := try("203.0.113.9", long+fmt.Sprint(i))
		if refused := err != nil; refused != (i >= addressBurst) && i < addressBurst+1 {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	// One key for the address and one for each name; a few more if the bucket
	// refills on a slow machine.
	if n := s.logins.Len(); n > 2*addressBurst {
		t.Errorf("%d keys after 2000 attempts from one address", n)
	}
	for i := range addressBurst {
		if err := try(fmt.Sprintf("2001:db8:1:2::%x", i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if try("2001:db8:1:2:ffff::1", "x") == nil {
		t.Error("another address of the same /64 network has a limit of its own")
	}
	if try("2001:db8:1:3::1", "x") != nil {
		t.Error("another network shares the limit")
	}
	if err := try("203.0.113.9", "x"); agented.KindOf(err) != agented.RateLimited {
		t.Errorf("error %v", err)
	} else if e := err.(*agented.Error); e.RetryAfter <= 0 || e.RetryAfter > addressEvery {
		t.Errorf("retry after %v", e.RetryAfter)
	}
	if limited < 1900 {
		t.Errorf("%d attempts were counted as limited", limited)
	}
}
