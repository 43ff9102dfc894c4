package dispatch_test

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/webhook"
)

// event reads a GitHub delivery.
func event(t *testing.T, name string, body any) *webhook.Event {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	e, err := webhook.Parse(http.Header{"X-Github-Event": {name}, "Content-Type": {"application/json"}}, text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// trigger stores a trigger.
func (h *house) trigger(name string, spec agented.Spec) *agented.Trigger {
	h.t.Helper()
	trigger := &agented.Trigger{Name: name, Enabled: true, Spec: spec}
	if err := h.db.CreateTrigger(h.t.Context(), trigger, "test"); err != nil {
		h.t.Fatal(err)
	}
	return trigger
}

// deliver makes a GitHub delivery fire one trigger.
func (h *house) deliver(d *dispatch.Dispatcher, trigger *agented.Trigger, e *webhook.Event) agented.DeliveryTrigger {
	h.t.Helper()
	got, err := d.Deliver(h.t.Context(), dispatch.Inbound{
		Delivery: agented.Delivery{ID: agented.DeliveryID(agented.NewID("dlv", time.Now())), Endpoint: "github", ReceivedAt: time.Now()},
		Body:     e.Raw, Event: e,
		Hits: []dispatch.Hit{{Trigger: trigger, Webhook: agented.Webhook{ID: "whk-x", Source: agented.SourceGitHub}, Verdict: webhook.MatchResult{Fires: true}}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return got.Delivery.Triggers[0]
}

func TestDeliverRef(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	trigger := h.trigger("branches", *command("true"))
	trigger.Spec.Workspace = &agented.Workspace{Repository: address, Ref: "{branch}"}

	for _, branch := range []string{"feature/x", "dependabot/npm_and_yarn/@types/node-20.1.0", "a+b", "fix#12", "mañana", "feat/日本", "a,b", "feat(api)-x", strings.Repeat("x", 150)} {
		if out, err := exec.Command("git", "-C", strings.TrimPrefix(address, "file://"), "branch", "--", branch).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		fired := h.deliver(d, trigger, event(t, "push", map[string]any{"ref": "refs/heads/" + branch, "repository": map[string]any{"full_name": "o/r"}}))
		if !fired.Fired {
			t.Errorf("%s: not fired: %s", branch, fired.Reason)
			continue
		}
		h.await(fired.Execution)
		if e := h.stored(fired.Execution); e.State != agented.StateSuccess || e.Checkout == nil || e.Checkout.Ref != branch {
			t.Errorf("%s: %s %q, checkout %+v", branch, e.State, e.Reason, e.Checkout)
		}
	}
}

func TestDeliverRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	for name, c := range map[string]struct {
		workspace agented.Workspace
		says      string
	}{
		"ref":        {agented.Workspace{Repository: "file:///srv/x.git", Ref: "{branch}"}, `"a..b" cannot be the name of a branch`},
		"no ref":     {agented.Workspace{Repository: "file:///srv/x.git", Ref: "{tag}"}, "is empty after its placeholders are filled in"},
		"repository": {agented.Workspace{Repository: "https://git.example/{repo_full_name}.git"}, "has no usable path"},
	} {
		trigger := h.trigger(name, *command("true"))
		trigger.Spec.Workspace = &c.workspace
		fired := h.deliver(d, trigger, event(t, "push", map[string]any{"ref": "refs/heads/a..b", "repository": map[string]any{"full_name": "../.."}}))
		if fired.Execution == "" || !strings.Contains(fired.Reason, c.says) {
			t.Errorf("%s: the delivery has %+v", name, fired)
			continue
		}
		e := h.stored(fired.Execution)
		if e.State != agented.StateFailed || !strings.Contains(e.Reason, c.says) || e.FinishedAt.IsZero() || e.Cause == nil {
			t.Errorf("%s: %s %q, %+v", name, e.State, e.Reason, e.Cause)
		}
	}
}

// stored reads an execution from the database.
func (h *house) stored(id agented.ExecutionID) *agented.Execution {
	h.t.Helper()
	e, err := h.db.Execution(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}
