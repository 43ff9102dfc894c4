package pull_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/github/githubtest"
	"github.com/agented/agented/internal/intake"
	"github.com/agented/agented/internal/pull"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	m.Run()
}

// rig is a puller with a real store, dispatcher rules and a stand-in for GitHub.
type rig struct {
	t      *testing.T
	hub    *githubtest.Server
	repo   *githubtest.Repo
	hook   *githubtest.Hook
	db     *store.DB
	intake *intake.Intake
	config *config.Config
	client *github.Client
	puller *pull.Puller

	mu     sync.Mutex
	now    time.Time     // of GitHub
	skew   time.Duration // this machine's clock minus GitHub's
	slept  []time.Duration
	admits []store.DeliveryResult
}

func (r *rig) there() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) here() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now.Add(r.skew)
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) sleep(ctx context.Context, d time.Duration) error {
	r.mu.Lock()
	r.slept = append(r.slept, d)
	r.now = r.now.Add(d)
	r.mu.Unlock()
	return ctx.Err()
}

// newRig returns a rig with a webhook of the repository o/r. token: with a token
// in place of an App.
func newRig(t *testing.T, skew time.Duration, token bool) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, hub: githubtest.New(t), now: time.Now().UTC().Truncate(time.Second), skew: skew}
	r.hub.SetClock(r.there)
	r.repo = r.hub.AddRepo("o/r")
	r.hook = r.hub.AddHook("o/r", "https://agented.invalid/hooks/github", "secret")
	r.db = storetest.Open(t, filepath.Join(dir, "agented.db"), store.Options{})
	key, err := secret.Load(secret.Options{Path: filepath.Join(dir, "key")})
	if err != nil {
		t.Fatal(err)
	}
	r.config = &config.Config{GitHubPull: time.Minute, GitHubHooks: []string{"o/r"}}
	r.intake = intake.New(intake.Options{
		DB: r.db, Sealer: auth.NewSealer(key), Log: slog.New(slog.DiscardHandler), Now: r.here, Config: func() *config.Config { return r.config },
		Deliver: r.deliver, Count: func(agented.DeliveryVerdict) {}, Changed: func() {}, Delivered: func(context.Context, store.DeliveryResult) {},
	})
	o := github.Options{URL: r.hub.URL, Now: r.here}
	if token {
		o.Token = r.hub.AddToken("bot")
	} else {
		a := r.hub.AddApp("app", "o")
		o.AppID, o.PrivateKey = a.ID, a.Key
	}
	if r.client, err = github.New(o); err != nil {
		t.Fatal(err)
	}
	r.restart()
	return r
}

// restart replaces the puller, as a new process would.
func (r *rig) restart() {
	r.puller = pull.New(pull.Options{
		DB: r.db, Intake: r.intake, Client: func() *github.Client { return r.client }, Config: func() *config.Config { return r.config },
		Log: slog.New(slog.DiscardHandler), Now: r.here, Sleep: r.sleep,
	})
}

// deliver stores a delivery with executions, as the dispatcher does.
func (r *rig) deliver(ctx context.Context, in dispatch.Inbound) (store.DeliveryResult, error) {
	a := store.DeliveryAdmission{Delivery: in.Delivery, Body: in.Body, Rules: in.Rules}
	for _, h := range in.Hits {
		f := store.DeliveryFiring{DeliveryTrigger: agented.DeliveryTrigger{Trigger: h.Trigger.ID, TriggerName: h.Trigger.Name, Webhook: h.Webhook.ID, Rule: h.Verdict.Rule, Reason: h.Verdict.Reason}}
		if h.Verdict.Fires {
			f.Admission = &store.Admission{Execution: &agented.Execution{
				ID: agented.ExecutionID(agented.NewID("exec", r.here())), Trigger: h.Trigger.ID, TriggerName: h.Trigger.Name, Source: agented.SourceGitHub,
				State: agented.StatePending, CreatedAt: r.here(), ScheduledAt: r.here(), Prompt: in.Event.Title, Snapshot: h.Trigger.Spec,
			}}
		}
		a.Triggers = append(a.Triggers, f)
	}
	got, err := r.db.AdmitDelivery(ctx, a, r.here())
	if err == nil && !got.Stale {
		r.mu.Lock()
		r.admits = append(r.admits, got)
		r.mu.Unlock()
	}
	return got, err
}

// trigger creates a trigger for labelled pull requests.
func (r *rig) trigger(name, match string) {
	r.t.Helper()
	t := &agented.Trigger{
		ID: agented.TriggerID(agented.NewID("trg", r.here())), Enabled: true, CreatedAt: r.here(),
		Spec:     agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}},
		Webhooks: []agented.Webhook{{ID: agented.NewID("whk", r.here()), Source: agented.SourceGitHub, Enabled: true, Match: json.RawMessage(match)}},
	}
	t.Name = name
	if err := r.db.CreateTrigger(r.t.Context(), t, "test"); err != nil {
		r.t.Fatal(err)
	}
}

func labeled(n int) map[string]any {
	return map[string]any{
		"action": "labeled", "number": n, "label": map[string]string{"name": "go"},
		"pull_request": map[string]any{"number": n, "title": fmt.Sprintf("number %d", n), "author_association": "OWNER", "user": map[string]string{"login": "ann", "type": "User"}},
		"repository":   map[string]string{"full_name": "o/r"}, "sender": map[string]string{"login": "ann", "type": "User"},
	}
}

// record records n deliveries, of which every 25th is one that fires, at most
// 270, and returns the GUIDs of those.
func (r *rig) record(n int) (wanted []string) {
	for i := range n {
		r.pass(time.Second)
		if i%25 == 10 && len(wanted) < 270 {
			wanted = append(wanted, r.hook.Record("pull_request", labeled(len(wanted))))
			continue
		}
		switch i % 3 {
		case 0:
			r.hook.Record("star", map[string]string{"action": "created"})
		case 1:
			p := labeled(i)
			p["action"] = "edited"
			r.hook.Record("pull_request", p)
		default:
			r.hook.Record("push", map[string]string{"ref": "refs/heads/main"})
		}
	}
	return wanted
}

// fired returns the GUIDs of deliveries that fired, in the order of their
// executions.
func (r *rig) fired() (guids []string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, got := range r.admits {
		d, err := r.db.Delivery(r.t.Context(), got.Delivery.ID)
		if err != nil || !d.Pulled {
			r.t.Fatalf("delivery %+v, %v", d, err)
		}
		for range d.Executions() {
			if !got.Duplicate {
				guids = append(guids, strings.TrimPrefix(d.Key, "github:"))
			}
		}
	}
	counts, err := r.db.Counts(r.t.Context())
	if err != nil || counts[agented.StatePending] != int64(len(guids)) {
		r.t.Errorf("%v executions are stored, %d were admitted, %v", counts, len(guids), err)
	}
	return guids
}

func (r *rig) status() agented.PullStatus {
	r.t.Helper()
	list := r.puller.Status()
	if len(list) != 1 {
		r.t.Fatalf("status %+v", list)
	}
	return list[0]
}

func (r *rig) expect(want []string) {
	r.t.Helper()
	if got := r.fired(); !slices.Equal(got, want) {
		r.t.Errorf("%d executions, want %d in order; first difference at %d", len(got), len(want), difference(got, want))
	}
}

func difference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

const goLabel = `{"events":["pull_request.labeled"],"repositories":["o/*"],"labels":["go"]}`

// TestRound_exactly_once reads 7,000 deliveries of which 270 match, over pages
// that shift and repeat, limits, errors of GitHub and a restart in the middle.
func TestRound_exactly_once(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{0, 3 * time.Hour, -3 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, skew, false)
			r.trigger("labelled", goLabel)
			r.pass(2 * time.Minute)
			want := r.record(testrun.Size(700, 7000, 7000))
			if len(want) != testrun.Size(28, 270, 270) {
				t.Fatalf("%d deliveries match", len(want))
			}
			// The body of a delivery expired, and it was redelivered; that of
			// another one is gone.
			r.hook.Expire(want[3])
			r.hook.Redeliver(want[3])
			gone := r.hook.Record("pull_request", labeled(7))
			r.hook.Expire(gone)
			r.hub.Do(func() { r.hook.Shift, r.hook.Repeat = 3, 5 })
			r.hub.SecondaryLimit("GET", "/deliveries$", 4, 1, "90")
			r.hub.SecondaryLimit("GET", `/deliveries/\d+$`, 9, 1, "")
			r.hub.Fail(githubtest.Fault{Path: `/deliveries/\d+$`, After: 14, Times: 2})
			r.hub.Fail(githubtest.Fault{Path: `/deliveries$`, After: 6, Drop: true})
			r.hub.Fail(githubtest.Fault{Path: `/deliveries/\d+$`, After: 19, Times: 6}) // ends the round
			r.puller.Round(t.Context())
			if s := r.status(); s.Problem == "" || s.Waiting == 0 || s.OldestWait.IsZero() {
				t.Errorf("after a round that failed: %+v", s)
			}
			r.restart()
			for range 3 {
				r.pass(time.Minute)
				r.puller.Round(t.Context())
			}
			r.expect(want)
			s := r.status()
			if s.Problem != "" || s.Lost != 1 || s.Pulled != int64(len(want)) || s.Waiting != 0 || s.LastSuccess.IsZero() {
				t.Errorf("status %+v", s)
			}
			fetched := 0
			for _, c := range r.hub.Calls() {
				if strings.Contains(c.Path, "/deliveries/") {
					fetched++
				}
			}
			if most := len(want) + 20; fetched > most {
				t.Errorf("%d bodies were fetched, want at most %d", fetched, most)
			}
			rejected, _, err := r.db.Deliveries(t.Context(), store.DeliveryFilter{Verdict: agented.VerdictRejected}, store.Page{Limit: 10})
			r.pass(time.Minute)
			r.hook.Redeliver(gone) // by a person, later
			r.puller.Round(t.Context())
			r.expect(append(want, gone))
			if err != nil || len(rejected) != 1 || !strings.Contains(rejected[0].Reason, gone) {
				t.Errorf("the lost delivery is recorded as %+v, %v", rejected, err)
			}
		})
	}
}

// Push and pull use one ledger.
func TestRound_pushed_deliveries(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, true)
	r.trigger("labelled", goLabel)
	r.pass(time.Minute)
	want := r.record(52)
	push := func(guid string, n int) {
		body, _ := json.Marshal(labeled(n))
		_, err := r.intake.Pull(t.Context(), intake.Pulled{
			Hook: intake.Hook{Endpoint: agented.EndpointGitHub}, GUID: guid, At: r.here(), Event: "pull_request", Body: body, From: "push",
			Header: map[string][]string{"Content-Type": {"application/json"}, "X-Github-Event": {"pull_request"}, "X-Github-Delivery": {guid}},
		})
		if err != nil {
			t.Error(err)
		}
	}
	push(want[0], 0)
	var wg sync.WaitGroup
	wg.Go(func() { r.puller.Round(t.Context()) })
	wg.Go(func() { push(want[1], 1) })
	wg.Wait()
	r.puller.Round(t.Context())
	got := r.fired()
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("fired %v, want %v", got, want)
	}
}

// A trigger fires for nothing from before it was created or while it was
// disabled.
func TestRound_old_deliveries(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, false)
	r.record(52)
	r.pass(10 * time.Minute)
	r.puller.Round(t.Context()) // no trigger yet
	r.trigger("first", goLabel)
	r.pass(10 * time.Minute)
	want := r.record(26)
	r.puller.Round(t.Context())
	r.expect(want)
	r.pass(time.Hour)
	r.trigger("second", goLabel)
	r.restart()
	r.puller.Round(t.Context())
	r.expect(want)
}

// A missed delivery fires the triggers that existed when GitHub made it.
func TestRound_newer_trigger(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, false)
	r.trigger("first", goLabel)
	r.pass(10 * time.Minute)
	want := r.record(26)
	r.pass(10 * time.Minute)
	r.trigger("second", goLabel)
	r.puller.Round(t.Context())
	r.expect(want) // once: by the first trigger only
}

// Of several deliveries with one GUID, any that GitHub still has is fetched.
func TestRound_redelivery_that_expired(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, false)
	r.trigger("labelled", goLabel)
	r.pass(2 * time.Minute)
	want := r.record(26)
	r.hook.Redeliver(want[0])
	page, _, err := r.client.Deliveries(t.Context(), github.HookSource{Repository: github.Repository{Owner: "o", Name: "r"}, Hook: r.hook.ID}, "")
	if err != nil || page[0].GUID != want[0] {
		t.Fatalf("newest delivery %+v, %v", page[0], err)
	}
	r.hub.Fail(githubtest.Fault{Path: fmt.Sprintf("/deliveries/%d$", page[0].ID), Times: -1, Status: 410})
	r.puller.Round(t.Context())
	r.expect(want)
	if s := r.status(); s.Lost != 0 || !s.Position.Equal(page[0].DeliveredAt) {
		t.Errorf("status %+v, want the position of the newest delivery, %s", s, page[0].DeliveredAt)
	}
}

// A webhook that was created again continues where the old one was.
func TestRound_webhook_created_again(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, true)
	r.trigger("labelled", goLabel)
	r.pass(2 * time.Minute)
	want := r.record(30)
	r.puller.Round(t.Context())
	r.hook.Remove()
	r.hook = r.hub.AddHook("o/r", "https://agented.invalid/api/webhooks/github/", "")
	want = append(want, r.record(30)...)
	r.pass(11 * time.Minute)
	r.puller.Round(t.Context())
	r.puller.Round(t.Context())
	r.expect(want)
	// Two that could be meant: nothing is guessed.
	r.hub.AddHook("o/r", "https://other.example.org/hooks/github", "")
	r.pass(11 * time.Minute)
	r.record(30)
	r.puller.Round(t.Context())
	if s := r.status(); !strings.Contains(s.Problem, "o/r#ID") || !strings.Contains(s.Problem, fmt.Sprint(r.hook.ID)) {
		t.Errorf("problem %q", s.Problem)
	}
	r.expect(want)
	r.config.GitHubHooks = []string{fmt.Sprintf("O/R#%d", r.hook.ID)}
	r.puller.Round(t.Context())
	if got := r.fired(); len(got) != len(want)+1 {
		t.Errorf("with the id of the webhook: %d executions, want %d", len(got), len(want)+1)
	}
}

func TestRound_sources(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, true)
	r.config.GitHubHooks = nil
	r.trigger("labelled", `{"repositories":["o/r","other/*"]}`)
	r.puller.Round(t.Context())
	if s := r.status(); s.Name != "o/r" || s.Problem != "" || s.Hook != r.hook.ID {
		t.Errorf("with a token: %+v", s)
	}
	r.config.GitHubHooks = []string{"o/none"}
	r.puller.Round(t.Context())
	if s := r.status(); s.Name != "o/none" || !strings.Contains(s.Problem, "404") {
		t.Errorf("a repository without access: %+v", s)
	}
	r.config.GitHubPull = 0
	r.puller.Round(t.Context())
	if list := r.puller.Status(); len(list) != 0 {
		t.Errorf("switched off: %+v", list)
	}
}

// One body that GitHub cannot return holds the following ones up for some
// rounds, not for good.
func TestRound_body_that_fails(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, true)
	r.trigger("labelled", goLabel)
	r.pass(2 * time.Minute)
	want := r.record(60)
	page, _, err := r.client.Deliveries(t.Context(), github.HookSource{Repository: github.Repository{Owner: "o", Name: "r"}, Hook: r.hook.ID}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range page {
		if d.GUID == want[0] {
			r.hub.Fail(githubtest.Fault{Path: fmt.Sprintf("/deliveries/%d$", d.ID), Times: -1, Status: 500})
		}
	}
	for range 9 {
		r.puller.Round(t.Context())
	}
	r.expect(nil)
	r.puller.Round(t.Context())
	r.puller.Round(t.Context())
	r.expect(want[1:])
}

func TestRound_app(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0, false)
	r.config.GitHubHooks = nil
	r.hook = r.hub.AddHook("", "", "")
	r.trigger("labelled", goLabel)
	r.pass(2 * time.Minute)
	want := r.record(150)
	r.puller.Round(t.Context())
	if s := r.status(); s.Name != "app" || s.Problem != "" {
		t.Errorf("status %+v", s)
	}
	r.expect(want)
}
