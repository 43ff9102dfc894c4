package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestAccounts_states_and_fixes(t *testing.T) {
	until := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	o := Options{Accounts: func(context.Context) ([]agented.Account, error) {
		return []agented.Account{
			{ID: "acc-1", Backend: "claude", Name: "work", Enabled: true, State: agented.AccountReady},
			{ID: "acc-2", Backend: "claude", Name: "home", Enabled: true, State: agented.AccountCooling, Until: until, Evidence: "five hours"},
			{ID: "acc-3", Backend: "codex", Name: "old", Enabled: true, State: agented.AccountNeedsLogin, Evidence: "401"},
			{ID: "acc-4", Backend: "codex", Name: "poor", Enabled: true, State: agented.AccountOutOfCredit, Evidence: "402"},
			{ID: "acc-5", Backend: "codex", Name: "off", State: agented.AccountNeedsLogin},
			{ID: "acc-6", Backend: "codex", Name: "bare", Enabled: true, State: agented.AccountReady, Hint: "no credentials seen", Fix: "run codex login"},
			{ID: "acc-7", Backend: "gemini", Name: "default", Default: true, Enabled: true, State: agented.AccountReady, Hint: "the program gemini is not installed", Fix: "npm install"},
		}, nil
	}}
	got := checkAccounts(t.Context(), o)
	want := []struct {
		status Status
		says   string
		fix    string
	}{{OK, "ready", ""}, {Warn, "2026-11-24 03:00 UTC: five hours", "account reset acc-2"}, {Warn, "401", "account reset codex/old"}, {Warn, "402", "account reset codex/poor"}, {OK, "disabled", ""}, {Warn, "not usable yet: no credentials seen", "codex login"}, {OK, "not installed", "npm install"}}
	if len(got) != len(want) {
		t.Fatalf("findings: %+v", got)
	}
	for i, w := range want {
		f := got[i]
		if f.Status != w.status || !strings.Contains(f.Text, w.says) || !strings.Contains(f.Fix, w.fix) || f.ID == "" {
			t.Errorf("finding %d: %+v", i, f)
		}
	}
	o.Accounts = func(context.Context) ([]agented.Account, error) { return nil, errors.New("no server") }
	if got := checkAccounts(t.Context(), o); len(got) != 0 {
		t.Errorf("without a server: %+v", got)
	}
}
