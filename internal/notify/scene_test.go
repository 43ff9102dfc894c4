package notify

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

var start = time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// scene is a notifier with a clock that the test moves.
type scene struct {
	t    *testing.T
	db   *store.DB
	n    *Notifier
	mu   sync.Mutex
	time time.Time
}

func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, time: start}
	path := filepath.Join(t.TempDir(), "agented.db")
	log := slog.New(slog.DiscardHandler)
	s.db = storetest.Open(t, path, store.Options{Log: log})
	s.n = s.notifier()
	return s
}

func (s *scene) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

// notifier returns a notifier as after a restart.
func (s *scene) notifier() *Notifier {
	g := &Guard{Allow: loopback, Own: func() netip.AddrPort { return netip.AddrPort{} }, Lookup: LookupHost}
	return New(Options{
		DB: s.db, Guard: g, Now: s.now, Log: slog.New(slog.DiscardHandler),
		Open: func(_, _, sealed string) (string, error) { return sealed, nil },
		Secret: func(context.Context, string) (string, error) {
			return "", agented.Errorf(agented.NotFound, "no secret")
		},
		Base: func() string { return "https://agented.example.org" },
		Mask: func(s string) string { return s },
		Zone: func() *time.Location { return time.UTC },
	})
}

func (s *scene) channel(c notices.Channel) *notices.Channel {
	s.t.Helper()
	c.ID, c.Enabled, c.CreatedAt, c.UpdatedAt = "chan-"+c.Name, true, start, start
	if c.Kind == "" {
		c.Kind = notices.Webhook
	}
	if c.Kind == notices.Webhook {
		c.Settings.Secret = testSecret
	}
	s.db.ChannelsChanged()
	if err := s.db.Update(s.t.Context(), "channel", func(tx store.Tx) error { return notices.Insert(tx, &c) }); err != nil {
		s.t.Fatal(err)
	}
	return &c
}

func (s *scene) notify(kind agented.NotificationKind, text string) {
	s.t.Helper()
	if err := s.db.Notify(s.t.Context(), agented.Notice{Kind: kind, Text: text, At: s.now()}); err != nil {
		s.t.Fatal(err)
	}
}

// pass sends what is due, and returns when the next one is.
func (s *scene) pass() time.Time {
	s.t.Helper()
	s.n.start(s.t.Context(), s.now())
	s.n.workers.Wait()
	var next time.Time
	err := s.db.View(s.t.Context(), "due", func(q notices.Querier) (err error) {
		var due []string
		due, next, err = notices.Due(q, s.now())
		if len(due) > 0 {
			next = s.now()
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return next
}

// settle moves the clock until nothing waits, at most for a time.
func (s *scene) settle(most time.Duration) {
	s.t.Helper()
	end := s.now().Add(most)
	for {
		next := s.pass()
		if next.IsZero() || next.After(end) {
			return
		}
		s.mu.Lock()
		s.time = next
		s.mu.Unlock()
	}
}

func (s *scene) list(channel string) []notices.Notification {
	s.t.Helper()
	var list []notices.Notification
	err := s.db.View(s.t.Context(), "list", func(q notices.Querier) (err error) {
		list, _, err = notices.List(q, notices.Filter{Channel: channel}, 0, 1000)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// receiver is a server that records what it is sent.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	calls []call
}

type call struct {
	header http.Header
	body   string
	path   string
}

// received calls answer for each request, after it is recorded.
func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	r := new(receiver)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body := make([]byte, 64<<10)
		n := 0
		for {
			m, err := q.Body.Read(body[n:])
			n += m
			if err != nil {
				break
			}
		}
		r.mu.Lock()
		r.calls = append(r.calls, call{q.Header.Clone(), string(body[:n]), q.URL.Path})
		count := len(r.calls)
		r.mu.Unlock()
		if answer != nil {
			answer(count, w, q)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]call(nil), r.calls...)
}
