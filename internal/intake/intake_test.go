package intake

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/webhook"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	m.Run()
}

// opened returns an Intake with a store, whose dispatcher must not be called,
// and the number of calls by verdict.
func opened(t *testing.T) (*Intake, map[agented.DeliveryVerdict]int) {
	t.Helper()
	dir := t.TempDir()
	db := storetest.Open(t, filepath.Join(dir, "agented.db"), store.Options{})
	key, err := secret.Load(secret.Options{Path: filepath.Join(dir, "key")})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[agented.DeliveryVerdict]int{}
	now := time.Now()
	return New(Options{
		DB: db, Sealer: auth.NewSealer(key), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		Config: func() *config.Config { return &config.Config{} },
		Deliver: func(context.Context, dispatch.Inbound) (store.DeliveryResult, error) {
			t.Error("a call that no webhook verifies was delivered")
			return store.DeliveryResult{}, nil
		},
		Count: func(v agented.DeliveryVerdict) { counts[v]++ }, Changed: func() {}, Delivered: func(context.Context, store.DeliveryResult) {},
	}), counts
}

const unknown = "trg-01jdc4q7zv8m3k2n5p6r7s8t9w"

func receive(in *Intake, from, endpoint string, r *http.Request) error {
	_, _, err := in.Receive(httptest.NewRecorder(), r, netip.MustParseAddr(from), endpoint)
	return err
}

func stored(t *testing.T, in *Intake) []agented.Delivery {
	t.Helper()
	list, _, err := in.o.DB.Deliveries(t.Context(), store.DeliveryFilter{}, store.Page{Limit: store.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestReceive_rejections(t *testing.T) {
	t.Parallel()
	post := func(body string) *http.Request { return httptest.NewRequest("POST", "/", strings.NewReader(body)) }
	cut := post("")
	cut.Body, cut.ContentLength = http.NoBody, 10
	cut.Body = readCloser{iotest.ErrReader(errors.New("connection reset"))}
	long := post("")
	long.ContentLength = webhook.MaxBody + 1
	for name, c := range map[string]struct {
		endpoint string
		r        *http.Request
		kind     agented.Kind
		content  bool
		reason   string
	}{
		"unknown_trigger":  {unknown, post("{}"), agented.Unauthenticated, false, ""},
		"no_server_secret": {agented.EndpointGitHub, post("{}"), agented.Unavailable, false, "GITHUB_WEBHOOK_SECRET"},
		"no_webhook":       {agented.EndpointAny, post("{}"), agented.Unavailable, false, "no trigger has a webhook"},
		"cut_body":         {unknown, cut, agented.Invalid, true, "ended before"},
		"long_body":        {unknown, long, agented.TooLarge, false, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, counts := opened(t)
			err := receive(in, "203.0.113.9", c.endpoint, c.r)
			if agented.KindOf(err) != c.kind {
				t.Errorf("error %v of kind %s, want %s", err, agented.KindOf(err), c.kind)
			}
			if _, is := errors.AsType[*ContentError](err); is != c.content {
				t.Errorf("content error: %t", is)
			}
			list := stored(t, in)
			if len(list) != 1 || list[0].Verdict != agented.VerdictRejected || list[0].Address != "203.0.113.9" || !strings.Contains(list[0].Reason, c.reason) {
				t.Errorf("stored %+v", list)
			}
			if counts[agented.VerdictRejected] != 1 {
				t.Errorf("counted %v", counts)
			}
			if n, networks := in.BodiesInUse(); n != 0 || networks != 0 {
				t.Errorf("%d bytes of %d networks are held", n, networks)
			}
		})
	}
}

type readCloser struct{ io.Reader }

func (readCloser) Close() error { return nil }

func TestReceive_rejection_limits(t *testing.T) {
	t.Parallel()
	in, counts := opened(t)
	call := func(from string) error { return receive(in, from, unknown, httptest.NewRequest("POST", "/", nil)) }
	for i := range refusedBurst {
		if err := call("203.0.113.9"); agented.KindOf(err) != agented.Unauthenticated {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	err := call("203.0.113.9")
	if e, ok := errors.AsType[*agented.Error](err); !ok || e.Kind != agented.RateLimited || e.RetryAfter <= 0 {
		t.Errorf("call over the limit: %v", err)
	}
	if n := len(stored(t, in)); n != storedBurst {
		t.Errorf("%d rejections are stored, want %d", n, storedBurst)
	}
	if err := call("203.0.113.10"); agented.KindOf(err) != agented.Unauthenticated {
		t.Errorf("another address: %v", err)
	}
	reasons := ""
	for _, d := range stored(t, in) {
		reasons += d.Reason + "\n"
	}
	if !strings.Contains(reasons, "41 more rejections") {
		t.Errorf("the rejections that were not stored are not reported:\n%s", reasons)
	}
	if counts[agented.VerdictRejected] != refusedBurst+2 {
		t.Errorf("counted %v", counts)
	}
}

func TestBodyBudget(t *testing.T) {
	t.Parallel()
	b := newBodyBudget(100, 60)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if b.acquire(ctx, "a", 60) != nil || b.acquire(ctx, "b", 40) != nil {
		t.Fatal("bytes within the limits are not available")
	}
	if b.acquire(ctx, "c", 1) == nil {
		t.Error("more bytes than the total are reserved")
	}
	got := make(chan error, 1)
	go func() { got <- b.acquire(t.Context(), "a", 50) }()
	b.release("b", 40) // not enough: a has reached its share
	select {
	case err := <-got:
		t.Fatalf("a network got more than its share: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	b.release("a", 60)
	if err := testrun.Receive(t, got, "the bytes"); err != nil {
		t.Error(err)
	}
	if n, networks := b.inUse(); n != 50 || networks != 1 {
		t.Errorf("%d bytes of %d networks", n, networks)
	}
}
