package dispatch_test

import (
	"cmp"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
)

func TestRetryByOperator(t *testing.T) {
	t.Parallel()
	operator := agented.Principal{Name: "olga", Role: agented.RoleOperator}
	admin := agented.Principal{Name: "ada", Role: agented.RoleAdmin}
	value := func(s string) *string { return &s }
	spec := func() agented.Spec {
		return agented.Spec{
			Backend: agented.BackendCommand, Command: []string{"true"}, TimeoutSeconds: 60, MaxConcurrent: 1,
			Env: map[string]*string{"TOKEN": value("old"), "PASSED": nil},
		}
	}
	for _, c := range []struct {
		name   string
		adHoc  bool
		change func(h *house, tr *agented.Trigger) error
		needs  string // words of the refusal; empty: allowed
		token  string // value of TOKEN in the retry; empty: old
	}{
		{name: "unchanged"},
		{name: "renamed", change: func(h *house, tr *agented.Trigger) error {
			tr.Name = "another"
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "rotated secret", token: "new", change: func(h *house, tr *agented.Trigger) error {
			tr.Spec.Env = map[string]*string{"TOKEN": value("new"), "PASSED": nil}
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "removed variable", needs: "was changed", change: func(h *house, tr *agented.Trigger) error {
			tr.Spec.Env = map[string]*string{"PASSED": nil}
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "variable no longer passed on", needs: "was changed", change: func(h *house, tr *agented.Trigger) error {
			tr.Spec.Env = map[string]*string{"TOKEN": value("old"), "PASSED": value("x")}
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "changed command", needs: "was changed", change: func(h *house, tr *agented.Trigger) error {
			tr.Spec.Command = []string{"false"}
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "added workspace", needs: "was changed", change: func(h *house, tr *agented.Trigger) error {
			tr.Spec.Workspace = &agented.Workspace{Repository: "https://example.org/{repo_full_name}"}
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "disabled", needs: "is disabled", change: func(h *house, tr *agented.Trigger) error {
			tr.Enabled = false
			return h.db.UpdateTrigger(t.Context(), tr, "ada")
		}},
		{name: "deleted", needs: "was deleted", change: func(h *house, tr *agented.Trigger) error {
			return h.db.DeleteTrigger(t.Context(), tr.ID, "ada")
		}},
		{name: "ad hoc", adHoc: true, needs: "without a trigger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			d := h.dispatcher(nil)
			tr := &agented.Trigger{Name: "t", Enabled: true, Spec: spec()}
			if err := h.db.CreateTrigger(t.Context(), tr, "ada"); err != nil {
				t.Fatal(err)
			}
			firing := dispatch.Firing{Trigger: tr, Source: agented.SourceManual}
			if c.adHoc {
				firing.Trigger, firing.Spec = nil, &tr.Spec
			}
			e, _, err := d.Fire(t.Context(), firing)
			if err != nil {
				t.Fatal(err)
			}
			end := func(id agented.ExecutionID) {
				t.Helper()
				if _, err := d.Cancel(t.Context(), id, admin); err != nil {
					t.Fatal(err)
				}
			}
			end(e.ID)
			if c.change != nil {
				if err := c.change(h, tr); err != nil {
					t.Fatal(err)
				}
			}
			check := func(id agented.ExecutionID) {
				t.Helper()
				again, err := d.Retry(t.Context(), id, operator)
				if c.needs == "" {
					if err != nil {
						t.Fatal(err)
					}
					if got := *again.Snapshot.Env["TOKEN"]; got != cmp.Or(c.token, "old") {
						t.Errorf("TOKEN of the retry is %q", got)
					}
					end(again.ID)
					return
				}
				if agented.KindOf(err) != agented.Denied || !strings.Contains(agented.Message(err), c.needs) {
					t.Fatalf("an operator's retry: %v", err)
				}
			}
			check(e.ID)
			again, err := d.Retry(t.Context(), e.ID, admin)
			if err != nil {
				t.Fatalf("an admin's retry: %v", err)
			}
			end(again.ID)
			// The retry of a retry repeats the same settings, however new it is.
			check(again.ID)
		})
	}
}
