package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/agented/agented"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ready(name string, change func(*agented.Account)) agented.Account {
	a := agented.Account{ID: agented.AccountID(name), Backend: agented.BackendClaude, Name: name, Enabled: true, State: agented.AccountReady}
	if change != nil {
		change(&a)
	}
	return a
}

func TestSelectAccount_order(t *testing.T) {
	t.Parallel()
	any := []agented.Choice{{Backend: agented.BackendClaude}}
	used := func(ago time.Duration) func(*agented.Account) {
		return func(a *agented.Account) { a.UsedAt = noon.Add(-ago) }
	}
	cooling := func(until time.Time) func(*agented.Account) {
		return func(a *agented.Account) { a.State, a.Until, a.Evidence = agented.AccountCooling, until, "limit" }
	}
	codex := ready("x", func(a *agented.Account) { a.Backend = agented.BackendCodex })
	for name, c := range map[string]struct {
		chain []agented.Choice
		scene Candidates
		want  string // account; empty: none
		probe bool
		at    time.Time
	}{
		"least recently used":              {any, Candidates{Accounts: []agented.Account{ready("a", used(1)), ready("b", used(2))}}, "b", false, time.Time{}},
		"never used before all":            {any, Candidates{Accounts: []agented.Account{ready("a", used(1)), ready("b", nil)}}, "b", false, time.Time{}},
		"order before use":                 {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { a.Order = 1 }), ready("b", used(1))}}, "b", false, time.Time{}},
		"one without a problem":            {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { a.Hint, a.UsedAt = "no login", noon.Add(-time.Hour) }), ready("b", used(1))}}, "b", false, time.Time{}},
		"where the session is":             {any, Candidates{Accounts: []agented.Account{ready("a", nil), ready("b", func(a *agented.Account) { a.Config, a.UsedAt = "/b", noon })}, Session: &agented.Home{Backend: agented.BackendClaude, Config: "/b"}}, "b", false, time.Time{}},
		"by name, ignoring case":           {[]agented.Choice{{Backend: agented.BackendClaude, Account: "A"}}, Candidates{Accounts: []agented.Account{ready("b", nil), ready("a", nil)}}, "a", false, time.Time{}},
		"not while it cools":               {any, Candidates{Accounts: []agented.Account{ready("a", cooling(noon.Add(time.Hour)))}}, "", false, noon.Add(time.Hour)},
		"a probe when it has cooled":       {any, Candidates{Accounts: []agented.Account{ready("a", cooling(noon))}}, "a", true, time.Time{}},
		"a ready one before a probe":       {any, Candidates{Accounts: []agented.Account{ready("a", cooling(noon)), ready("b", used(1))}}, "b", false, time.Time{}},
		"nobody beside a probe":            {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { cooling(noon.Add(time.Minute))(a); a.Probing = true })}}, "", false, noon.Add(time.Minute)},
		"all when a probe is trusted":      {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { cooling(noon)(a); a.Probing = true })}}, "a", false, time.Time{}},
		"not one that is full":             {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { a.MaxConcurrent, a.Running = 2, 2 })}}, "", false, noon.Add(MaxAccountWait)},
		"not one that is disabled":         {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { a.Enabled = false })}}, "", false, time.Time{}},
		"what ends by itself before login": {any, Candidates{Accounts: []agented.Account{ready("a", func(a *agented.Account) { a.State = agented.AccountNeedsLogin }), ready("b", cooling(noon.Add(time.Hour)))}}, "", false, noon.Add(time.Hour)},
		"the next link of the chain":       {append(any, agented.Choice{Backend: agented.BackendCodex}), Candidates{Accounts: []agented.Account{ready("a", cooling(noon.Add(time.Hour))), codex}}, "x", false, time.Time{}},
		"not a backend that rests":         {append(any, agented.Choice{Backend: agented.BackendCodex}), Candidates{Accounts: []agented.Account{ready("a", nil), codex}, Backends: map[string]Cooldown{agented.BackendClaude: {Until: noon.Add(time.Minute), Reason: "overloaded"}}}, "x", false, time.Time{}},
	} {
		c.scene.Now = noon
		p := SelectAccount(c.chain, c.scene)
		if p.OK != (c.want != "") || p.OK && (string(p.Account.ID) != c.want || p.Probe != c.probe) || !p.OK && (!p.At.Equal(c.at) || p.Reason == "") {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestNextAttempt_classes(t *testing.T) {
	t.Parallel()
	hour := noon.Add(time.Hour)
	for name, c := range map[string]struct {
		policy   agented.RetryPolicy
		ended    Ended
		from, to time.Duration
		again    bool
	}{
		"a printed time and its jitter":         {agented.RetryPolicy{}, Ended{Class: agented.ClassAccountLimit, Until: hour.Add(7 * time.Second), ConsecutiveFailures: 1}, time.Hour + 7*time.Second, time.Hour + 7*time.Second + 2*time.Minute, true},
		"a clock without seconds is behind":     {agented.RetryPolicy{}, Ended{Class: agented.ClassAccountLimit, Until: hour, ConsecutiveFailures: 1}, time.Hour + time.Minute, time.Hour + 3*time.Minute, true},
		"unless the time is near":               {agented.RetryPolicy{}, Ended{Class: agented.ClassAccountLimit, Until: noon.Add(time.Minute), ConsecutiveFailures: 1}, time.Minute, 66 * time.Second, true},
		"a time that has passed is none":        {agented.RetryPolicy{}, Ended{Class: agented.ClassAccountLimit, Until: noon.Add(-time.Hour), ConsecutiveFailures: 1}, 150 * time.Second, 5 * time.Minute, true},
		"an unknown limit doubles":              {agented.RetryPolicy{}, Ended{Class: agented.ClassAccountLimit, ConsecutiveFailures: 3}, 10 * time.Minute, 20 * time.Minute, true},
		"and has an end":                        {agented.RetryPolicy{}, Ended{Class: agented.ClassAccountLimit, ConsecutiveFailures: 30}, 150 * time.Minute, 5 * time.Hour, true},
		"a failure of the agent is final":       {agented.RetryPolicy{}, Ended{Class: agented.ClassAgentFailure, ConsecutiveFailures: 1, Charged: 1}, 0, 0, false},
		"unless it is asked for":                {agented.RetryPolicy{OnFailure: true}, Ended{Class: agented.ClassAgentFailure, ConsecutiveFailures: 1, Charged: 1}, 15 * time.Second, 30 * time.Second, true},
		"as often as is allowed":                {agented.RetryPolicy{OnFailure: true}, Ended{Class: agented.ClassAgentFailure, ConsecutiveFailures: 2, Charged: 2}, 0, 0, false},
		"a network is tried five times":         {agented.RetryPolicy{}, Ended{Class: agented.ClassNetwork, ConsecutiveFailures: 5, Charged: 5}, 0, 0, false},
		"limits are never counted":              {agented.RetryPolicy{MaxAttempts: 1}, Ended{Class: agented.ClassOverload, ConsecutiveFailures: 9, Charged: 1}, 450 * time.Second, 15 * time.Minute, true},
		"what is lost is lost":                  {agented.RetryPolicy{}, Ended{Class: agented.ClassInterrupted, ConsecutiveFailures: 1}, 0, 0, false},
		"unless it is asked for too":            {agented.RetryPolicy{OnInterrupted: true}, Ended{Class: agented.ClassInterrupted, ConsecutiveFailures: 1}, 0, time.Second, true},
		"what ended by our hand is final":       {agented.RetryPolicy{OnFailure: true, OnInterrupted: true}, Ended{}, 0, 0, false},
		"it gives up":                           {agented.RetryPolicy{GiveUpAfterSeconds: 60}, Ended{Class: agented.ClassAuth, Began: noon.Add(-61 * time.Second), ConsecutiveFailures: 1}, 0, 0, false},
		"a limit may be lifted elsewhere first": {agented.RetryPolicy{GiveUpAfterSeconds: 60}, Ended{Class: agented.ClassAccountLimit, Until: hour, Began: noon, ConsecutiveFailures: 1}, time.Hour + time.Minute, time.Hour + 3*time.Minute, true},
	} {
		for _, jitter := range []float64{0, 0.5, 1} {
			at, again := NextAttempt(c.policy, c.ended, noon, jitter)
			if wait := at.Sub(noon); again != c.again || again && (wait < c.from || wait > c.to) {
				t.Errorf("%s, jitter %v: in %v, %v; want %v to %v", name, jitter, at.Sub(noon), again, c.from, c.to)
			}
		}
	}
}

func TestNextAttempt_bounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := agented.RetryPolicy{
			MaxAttempts: rapid.IntRange(0, 100).Draw(t, "max"), BaseSeconds: rapid.IntRange(0, agented.MaxGiveUp).Draw(t, "base"),
			CapSeconds: rapid.IntRange(0, agented.MaxGiveUp).Draw(t, "cap"), OnFailure: rapid.Bool().Draw(t, "failure"), OnInterrupted: rapid.Bool().Draw(t, "interrupted"),
		}
		e := Ended{
			Class: rapid.SampledFrom(agented.Classes).Draw(t, "class"), Charged: rapid.IntRange(0, 200).Draw(t, "charged"), ConsecutiveFailures: rapid.IntRange(-1, 1<<30).Draw(t, "like"),
		}
		if rapid.Bool().Draw(t, "told") {
			e.Until = noon.Add(time.Duration(rapid.Int64Range(-1e6, 4e6).Draw(t, "until")) * time.Second)
		}
		at, again := NextAttempt(p, e, noon, rapid.Float64Range(0, 1).Draw(t, "jitter"))
		if again && (at.Before(noon) || at.After(noon.Add(agented.MaxGiveUp*time.Second+2*time.Minute))) {
			t.Fatalf("%+v %+v: %v", p, e, at)
		}
	})
}

func TestAccountAfter(t *testing.T) {
	t.Parallel()
	later := noon.Add(5 * time.Hour)
	limit := AttemptResult{Class: agented.ClassAccountLimit, Until: later, Evidence: "limit", TimePrinted: true}
	a := AccountAfter(ready("a", nil), limit, noon)
	if a.State != agented.AccountCooling || !a.Until.Equal(later) || a.ConsecutiveLimits != 1 || a.Evidence != "limit" {
		t.Fatalf("after a limit: %+v", a)
	}
	if b := AccountAfter(a, AttemptResult{Class: agented.ClassAccountLimit, Until: noon.Add(time.Minute)}, noon); b.ConsecutiveLimits != 1 || !b.Until.Equal(later) {
		t.Errorf("a second one that met the same limit: %+v", b)
	}
	if b := AccountAfter(a, AttemptResult{Responded: true}, noon.Add(time.Minute)); b.State != agented.AccountCooling || !b.Until.Equal(noon.Add(time.Minute)) {
		t.Errorf("a success of another one: %+v", b)
	}
	a.Probing, a.ProbedAt = true, later
	if b := AccountAfter(a, AttemptResult{Responded: true, Probe: true}, later); b.State != agented.AccountReady || b.ConsecutiveLimits != 0 || b.Probing {
		t.Errorf("a probe that succeeded: %+v", b)
	}
	if b := AccountAfter(a, AttemptResult{Class: agented.ClassAccountLimit, Until: later.Add(time.Hour), Probe: true}, later); b.State != agented.AccountCooling || b.ConsecutiveLimits != 2 || b.Probing || !b.Until.Equal(later.Add(time.Hour)) {
		t.Errorf("a probe that was limited: %+v", b)
	}
	if b := AccountAfter(a, AttemptResult{Probe: true}, later); b.State != agented.AccountCooling || b.Probing || !b.Until.Equal(later) {
		t.Errorf("a probe that found out nothing: %+v", b)
	}
	if b := AccountAfter(a, AttemptResult{Class: agented.ClassAuth, Evidence: "401"}, noon); b.State != agented.AccountNeedsLogin || b.Evidence != "401" {
		t.Errorf("refused credentials: %+v", b)
	}
	if b := AccountAfter(a, AttemptResult{Class: agented.ClassBilling}, noon); b.State != agented.AccountOutOfCredit {
		t.Errorf("no credit: %+v", b)
	}
}
