package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
)

// TestSend_trouble has a receiver that answers with errors for ten minutes: each event arrives,
// in order, and a channel next to it waits for nothing.
func TestSend_trouble(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var accepted []string
	bad := newReceiver(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch down := s.now().Before(start.Add(10 * time.Minute)); {
		case down && n%3 == 0:
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		case down && n%3 == 1:
			w.WriteHeader(http.StatusInternalServerError)
		case down:
			panic(http.ErrAbortHandler) // it dies
		default:
			accepted = append(accepted, r.Header.Get("Webhook-Id"))
		}
	})
	good := newReceiver(t, nil)
	all := []agented.NotificationKind{agented.NotifyFailed, agented.NotifyHeld}
	s.channel(notices.Channel{Name: "bad", Events: all, Settings: notices.Settings{URL: bad.URL}})
	s.channel(notices.Channel{Name: "good", Events: all, Settings: notices.Settings{URL: good.URL}})
	for i := range 10 {
		s.notify(agented.NotifyHeld, fmt.Sprint(i))
	}
	s.pass()
	if got := len(good.all()); got != 10 {
		t.Errorf("the good channel got %d messages at once, want 10", got)
	}
	if got := len(bad.all()); got != 1 {
		t.Errorf("the bad channel was called %d times at once, want 1", got)
	}
	s.n = s.notifier() // a restart
	s.settle(time.Hour)
	var want []string
	for _, n := range slices.Backward(s.list("chan-bad")) {
		if want = append(want, n.ID); n.Status != notices.Sent {
			t.Errorf("%s is %s: %s", n.ID, n.Status, n.Answer)
		}
	}
	if !slices.Equal(accepted, want) {
		t.Errorf("accepted %q, want %q", accepted, want)
	}
	if calls := len(bad.all()); calls > 40 {
		t.Errorf("%d calls in ten minutes of trouble", calls)
	}
}

func TestSend_retry_after(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var at []time.Time
	r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if at = append(at, s.now()); n == 1 {
			w.Header().Set("Retry-After", "1800")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL}})
	s.notify(agented.NotifyHeld, "x")
	s.settle(2 * time.Hour)
	if len(at) != 2 || at[1].Sub(at[0]) != 30*time.Minute {
		t.Errorf("called at %v", at)
	}
}

// TestSend_give_up has a receiver that is down for good: that is visible, and known to the other channels.
func TestSend_give_up(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	bad := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	good := newReceiver(t, nil)
	s.channel(notices.Channel{Name: "bad", Events: []agented.NotificationKind{agented.NotifyHeld}, Settings: notices.Settings{URL: bad.URL}})
	s.channel(notices.Channel{Name: "good", Events: []agented.NotificationKind{agented.NotifyChannel}, Settings: notices.Settings{URL: good.URL}})
	s.notify(agented.NotifyHeld, "x")
	s.settle(23 * time.Hour)
	if n := s.list("chan-bad")[0]; n.Status != notices.Pending {
		t.Errorf("after less than a day: %s", n.Status)
	}
	s.settle(3 * time.Hour)
	if n := s.list("chan-bad")[0]; n.Status != notices.GaveUp || !strings.Contains(n.Answer, "502") || n.SettledAt.Sub(start) != giveUpAfter {
		t.Errorf("%s after %s: %q", n.Status, n.SettledAt.Sub(start), n.Answer)
	}
	if calls := good.all(); len(calls) != 1 || !strings.Contains(calls[0].body, "channel bad gave up a notification (held): 502") {
		t.Errorf("%+v", calls)
	}
}

// TestSend_after_days_off starts when the notifications are older than a day, before the network is up.
func TestSend_after_days_off(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	up := start.Add(72*time.Hour + 5*time.Minute)
	r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if s.now().Before(up) {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL}})
	for i := range 3 {
		s.notify(agented.NotifyHeld, fmt.Sprint(i))
	}
	s.set(start.Add(72 * time.Hour))
	s.settle(time.Hour)
	for _, n := range s.list("chan-a") {
		if n.Status != notices.Sent {
			t.Errorf("%s is %s after %d attempts: %s", n.Text, n.Status, n.Attempts, n.Answer)
		}
	}
}

// TestSend_refused skips a message that the other side never accepts.
func TestSend_refused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {})
	r.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var p payload
		if json.NewDecoder(q.Body).Decode(&p) != nil || p.Data.Text == "poison" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL}})
	s.notify(agented.NotifyHeld, "poison")
	s.notify(agented.NotifyHeld, "fine")
	s.settle(time.Hour)
	list := s.list("chan-a")
	if len(list) != 2 || list[1].Status != notices.GaveUp || list[1].Attempts != maxRefusals || list[0].Status != notices.Sent {
		t.Errorf("%+v", list)
	}
}

func TestSend_storm(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, nil)
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL}})
	for range 10_000 {
		s.notify(agented.NotifyFailed, "exit status 1")
	}
	s.settle(time.Hour)
	calls := r.all()
	if len(calls) != notices.Burst+1 || !strings.Contains(calls[notices.Burst].body, "and 9,979 more") {
		t.Errorf("%d messages, the last is %s", len(calls), calls[len(calls)-1].body)
	}
}

// TestSend_hides checks that what the other side repeats of the URL is not stored.
func TestSend_hides(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, func(_ int, w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "no http://%s%s for \x1b[31mB0CAFE\nCannot POST %s, %s %s", q.Host, q.URL.Path, q.URL.Path, strings.Repeat("x", 180), q.URL.Path)
	})
	s.channel(notices.Channel{Name: "a", Kind: notices.Slack, Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL + "/services/T000/B0CAFE/the-secret-of-it"}})
	s.notify(agented.NotifyHeld, "x")
	s.pass()
	if got := s.list("chan-a")[0].Answer; strings.Contains(got, "the-sec") || strings.Contains(got, "\x1b") || !strings.HasPrefix(got, "403 Forbidden: no ***") {
		t.Errorf("answer %q", got)
	}
}

func TestSend_redirect(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	inner := newReceiver(t, nil)
	r := newReceiver(t, func(_ int, w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, inner.URL, http.StatusTemporaryRedirect)
	})
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL}})
	s.notify(agented.NotifyHeld, "x")
	s.pass()
	if n := s.list("chan-a")[0]; n.Status != notices.Pending || !strings.Contains(n.Answer, "redirects are not followed") || len(inner.all()) != 0 {
		t.Errorf("%s: %q, %d calls behind it", n.Status, n.Answer, len(inner.all()))
	}
}

// TestSign checks the test vector of the Standard Webhooks libraries.
func TestSign(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	if err := sign(h, testSecret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)); err != nil {
		t.Fatal(err)
	}
	if got := h.Get("webhook-signature"); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" || h.Get("webhook-id") != "msg_p5jXN8AQM9LWM0D4loKWxJek" || h.Get("webhook-timestamp") != "1614265330" {
		t.Errorf("%v", h)
	}
	for _, bad := range []string{"", "whsec_", "whsec_!", "plain", "whsec_AAAA"} {
		if SecretFault(bad) == "" {
			t.Errorf("%q is accepted", bad)
		}
	}
	if made := NewSecret(); SecretFault(made) != "" || made == NewSecret() {
		t.Errorf("created %q", made)
	}
}

// TestSend_webhook verifies a message as a receiver does.
func TestSend_webhook(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, nil)
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: r.URL}})
	s.notify(agented.NotifyBackup, "disk full")
	s.pass()
	got := r.all()[0]
	want := http.Header{}
	if err := sign(want, testSecret, s.list("chan-a")[0].ID, start, []byte(got.body)); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if got.header.Get(name) != want.Get(name) {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), want.Get(name))
		}
	}
	var p payload
	if err := json.Unmarshal([]byte(got.body), &p); err != nil || p.Type != agented.NotifyBackup || p.Data.Text != "disk full" || p.Data.Title != "Agented: backup failed" || p.Data.Link != "https://agented.example.org/" {
		t.Errorf("%s, %v", got.body, err)
	}
}

// TestBodies checks what chats get of a hostile text.
func TestBodies(t *testing.T) {
	t.Parallel()
	n := &notices.Notification{Notice: agented.Notice{
		Kind: agented.NotifyFailed, TriggerName: "<!channel> *x*", Text: "@everyone [a](https://evil.example) <https://evil.example|b> \x1b[31m\u202e&", At: start,
		Execution: "exec-1",
	}, ID: "ntf-1"}
	m := message(n, "https://agented.example.org", func(s string) string { return s })
	for kind, body := range map[string]any{"slack": slackBody(m), "discord": discordBody(m), "teams": teamsBody(m), "ntfy": ntfyBody(m, "t"), "webhook": webhookBody(m)} {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		var plain strings.Builder
		enc := json.NewEncoder(&plain)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(body); err != nil {
			t.Fatal(err)
		}
		got := plain.String()
		if strings.Contains(got, `\u001b`) || strings.Contains(got, "\u202e") || !strings.Contains(string(text), "exec-1") {
			t.Errorf("%s: %s", kind, got)
		}
		switch kind {
		case "slack":
			if strings.Contains(got, "<!") || strings.Contains(got, "|b>") {
				t.Errorf("slack: %s", got)
			}
		case "discord":
			if strings.Contains(got, "](https") || !strings.Contains(got, `"parse":[]`) {
				t.Errorf("discord: %s", got)
			}
		case "teams":
			if strings.Contains(got, "](https") {
				t.Errorf("teams: %s", got)
			}
		}
	}
}

func TestSplitTopic(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://ntfy.sh/a": "https://ntfy.sh/ a", "https://h/ntfy/b/": "https://h/ntfy/ b", "https://ntfy.sh/": " ", "https://ntfy.sh": " ",
	} {
		server, topic, _ := splitTopic(url)
		if got := server + " " + topic; got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}

// TestRun_absence checks that a running notifier finds a trigger that has not succeeded in time.
func TestRun_absence(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	sent := make(chan struct{}, 1)
	r := newReceiver(t, func(n int, _ http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			sent <- struct{}{}
		}
	})
	s.channel(notices.Channel{Name: "a", Events: []agented.NotificationKind{agented.NotifyDeadMan}, Settings: notices.Settings{URL: r.URL}})
	spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}, TimeoutSeconds: 60, ExpectEvery: "30s"}
	trigger := &agented.Trigger{Name: "nightly", Spec: spec, Enabled: true, CreatedAt: start, UpdatedAt: start}
	if err := s.db.CreateTrigger(t.Context(), trigger, "ann"); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.time = start.Add(time.Minute)
	s.mu.Unlock()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.n.Run(ctx)
	}()
	select {
	case <-sent:
	case <-time.After(time.Minute):
		t.Error("nothing was sent")
	}
	stop()
	<-ended
	if got := r.all(); len(got) > 0 && !strings.Contains(got[0].body, "no execution has succeeded for 1m") {
		t.Errorf("sent %s", got[0].body)
	}
}
