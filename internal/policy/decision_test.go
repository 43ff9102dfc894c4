package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestEndOnProvider(t *testing.T) {
	t.Parallel()
	const self, other = agented.ExecutionID("exec-self"), agented.ExecutionID("exec-other")
	past, soon := noon.Add(-time.Minute), noon.Add(time.Minute)
	for _, c := range []struct {
		name          string
		was           Provider
		known, probes bool
		class         agented.Class
		responded     bool
		reach         Reach
		failures      int
		cools         time.Duration // from noon; 0: not
		probe         agented.ExecutionID
	}{
		{name: "first network failure", class: agented.ClassNetwork, reach: ReachFailed, failures: 1},
		{name: "fourth network failure", was: Provider{Failures: 3}, known: true, class: agented.ClassNetwork, reach: ReachFailed, failures: 4},
		{name: "fifth opens the breaker", was: Provider{Failures: 4}, known: true, class: agented.ClassNetwork, reach: ReachFailed, failures: 5, cools: BreakerPause},
		{
			name: "seventh doubles twice", was: Provider{Failures: 6, Cooldown: Cooldown{Until: past}}, known: true, class: agented.ClassNetwork,
			reach: ReachFailed, failures: 7, cools: 4 * BreakerPause,
		},
		{
			name: "longest pause", was: Provider{Failures: 60, Cooldown: Cooldown{Until: past}}, known: true, class: agented.ClassNetwork,
			reach: ReachFailed, failures: 61, cools: BreakerLimit,
		},
		{
			name: "concurrent failure while it cools", was: Provider{Failures: 5, Cooldown: Cooldown{Until: soon}, Probe: other}, known: true,
			class: agented.ClassNetwork, reach: ReachFailed, failures: 5, cools: time.Minute, probe: other,
		},
		{
			name: "failed probe of a network", was: Provider{Failures: 1, Cooldown: Cooldown{Until: soon}, Probe: self}, known: true, probes: true,
			class: agented.ClassNetwork, reach: ReachFailed, failures: 2, cools: BreakerPause,
		},
		{name: "overload cools at once", class: agented.ClassOverload, reach: ReachFailed, failures: 1, cools: 30 * time.Second},
		{name: "success without state", responded: true},
		{name: "success", was: Provider{Failures: 5}, known: true, responded: true, reach: ReachWorked},
		{name: "refused credentials", was: Provider{Failures: 5}, known: true, class: agented.ClassAuth, reach: ReachRefused},
		{name: "throttle", was: Provider{Failures: 5}, known: true, class: agented.ClassThrottle, reach: ReachRefused},
		{name: "inconclusive probe", was: Provider{Failures: 5, Probe: self}, known: true, probes: true, class: agented.ClassInterrupted, reach: ReachRetest},
		{name: "interrupted attempt", was: Provider{Failures: 5}, known: true, class: agented.ClassInterrupted},
	} {
		e := AttemptEnd{Execution: self, Backend: "claude", Class: c.class, Reason: "it failed", Responded: c.responded, Jitter: 1}
		got := EndOnProvider(c.was, c.known, c.probes, e, noon)
		var cools time.Duration
		if !got.Provider.Until.IsZero() {
			cools = got.Provider.Until.Sub(noon)
		}
		if got.Reach != c.reach || got.Failures != c.failures || cools != c.cools || got.Provider.Probe != c.probe {
			t.Errorf("%s: %+v", c.name, got)
		}
		if cools > 0 && c.was.Until != soon && !strings.HasPrefix(got.Provider.Reason, "waits for claude until ") {
			t.Errorf("%s: reason %q", c.name, got.Provider.Reason)
		}
	}
}

func TestEndOnAccount(t *testing.T) {
	t.Parallel()
	const self, other = agented.ExecutionID("exec-self"), agented.ExecutionID("exec-other")
	later := noon.Add(time.Hour)
	cooled := ready("a", func(a *agented.Account) {
		a.State, a.Until, a.Probing, a.ConsecutiveLimits = agented.AccountCooling, later, true, 2
	})
	for _, c := range []struct {
		name   string
		was    agented.Account
		probe  agented.ExecutionID
		end    AttemptEnd
		state  agented.AccountState
		holder agented.ExecutionID
		wake   bool
		limits int
	}{
		{"success of a ready account", ready("a", nil), "", AttemptEnd{Responded: true}, agented.AccountReady, "", false, 0},
		{"limit", ready("a", nil), "", AttemptEnd{Class: agented.ClassAccountLimit, Reason: "limit"}, agented.AccountCooling, "", true, 1},
		{"successful probe", cooled, self, AttemptEnd{Responded: true}, agented.AccountReady, "", true, 0},
		{"limited probe", cooled, self, AttemptEnd{Class: agented.ClassAccountLimit}, agented.AccountCooling, "", true, 3},
		{"success while another probes", cooled, other, AttemptEnd{Responded: true}, agented.AccountCooling, other, false, 0},
		{"test of the account", cooled, other, AttemptEnd{Responded: true, Tests: true}, agented.AccountReady, "", true, 0},
		{"test that did not reach it", cooled, other, AttemptEnd{Class: agented.ClassNetwork, Tests: true}, agented.AccountCooling, other, false, 0},
		{"refused credentials", ready("a", nil), "", AttemptEnd{Class: agented.ClassAuth}, agented.AccountNeedsLogin, "", true, 0},
		{"failure of the agent", ready("a", nil), "", AttemptEnd{Class: agented.ClassAgentFailure}, agented.AccountReady, "", false, 0},
	} {
		c.end.Execution = self
		got := EndOnAccount(c.was, c.probe, c.end, noon)
		if got.Account.State != c.state || got.Probe != c.holder || got.Wake != c.wake || got.Limits != c.limits {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	long := EndOnAccount(ready("a", nil), "", AttemptEnd{Class: agented.ClassAccountLimit, Reason: strings.Repeat("é", agented.MaxEvidence)}, noon)
	if n := len(long.Account.Evidence); n == 0 || n > agented.MaxEvidence {
		t.Errorf("%d bytes of evidence", n)
	}
}

func TestAddressCooldown(t *testing.T) {
	t.Parallel()
	if _, limited := AddressCooldown("codex", 0, noon); limited {
		t.Error("one throttled account is no limit of the address")
	}
	c, limited := AddressCooldown("codex", 1, noon)
	if !limited || !c.Until.Equal(noon) || !strings.Contains(c.Reason, "from this address") {
		t.Errorf("%+v, %v", c, limited)
	}
}

func TestUseOf(t *testing.T) {
	t.Parallel()
	probed := ready("a", func(a *agented.Account) { a.State, a.Until, a.Probing = agented.AccountCooling, noon, true })
	for _, c := range []struct {
		name string
		s    Selection
		now  time.Time
		want Use
	}{
		{"ready", Selection{Account: ready("a", nil)}, noon, UseReady},
		{"probe", Selection{Account: ready("a", nil), Probe: true}, noon, UseProbe},
		{"probe that has run long enough", Selection{Account: probed}, noon, UseConfirmed},
		{"probe that has not", Selection{Account: probed}, noon.Add(-1), UseReady},
	} {
		if got := UseOf(c.s, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// execution returns an execution whose attempts ended with the classes; the
// last one is the attempt that ends now.
func execution(classes ...agented.Class) *agented.Execution {
	e := &agented.Execution{ID: "exec-a", AttemptNo: len(classes)}
	for i, c := range classes {
		e.Attempts = append(e.Attempts, agented.Attempt{Number: i + 1, Class: c, StartedAt: noon.Add(-time.Hour)})
	}
	return e
}

func TestAfterAttempt(t *testing.T) {
	t.Parallel()
	network, failure := agented.ClassNetwork, agented.ClassAgentFailure
	claude, codex := agented.Choice{Backend: "claude"}, agented.Choice{Backend: "codex"}
	resumed := execution("")
	resumed.Attempts[0].ResumedFrom = "session"
	test := execution("")
	test.ProbeAccount = "acc-a"
	late := execution("")
	late.Attempts[0].StartedAt = noon.Add(-30 * 24 * time.Hour)
	for _, c := range []struct {
		name   string
		end    ExecutionEnd
		step   Step
		wait   time.Duration // for StepRetry, with jitter 1
		reason string        // its end
		chain  int
	}{
		{name: "success", end: ExecutionEnd{Execution: execution("")}, reason: "why"},
		{name: "failure of the agent", end: ExecutionEnd{Execution: execution(""), Class: failure}, reason: "why"},
		{name: "second failure", end: ExecutionEnd{Execution: execution(failure, ""), Class: failure}, reason: "why; gave up after 2 attempts"},
		{
			name: "retry of a failure", end: ExecutionEnd{Execution: execution(""), Class: failure, Policy: agented.RetryPolicy{OnFailure: true}},
			step: StepRetry, wait: 30 * time.Second, reason: "tries again at 2026-11-23 12:00:30 UTC",
		},
		{
			name: "network doubles with the same failures", end: ExecutionEnd{Execution: execution(failure, network, network, ""), Class: network},
			step: StepRetry, wait: 120 * time.Second, reason: "UTC",
		},
		{
			name: "failures of the provider count instead", end: ExecutionEnd{Execution: execution(""), Class: network, Limits: 3},
			step: StepRetry, wait: 120 * time.Second, reason: "UTC",
		},
		{name: "fifth network failure", end: ExecutionEnd{Execution: execution(network, network, network, network, ""), Class: network}, reason: "gave up after 5 attempts"},
		{name: "limit", end: ExecutionEnd{Execution: execution(""), Class: agented.ClassAccountLimit}, step: StepSelect, reason: "why"},
		{name: "limit after the deadline", end: ExecutionEnd{Execution: late, Class: agented.ClassAccountLimit}, reason: "why"},
		{name: "cancellation was requested", end: ExecutionEnd{Execution: execution(network, ""), Class: network, CancelAsked: true}, reason: "why"},
		{name: "test of an account", end: ExecutionEnd{Execution: test, Class: agented.ClassAccountLimit}, reason: "why"},
		{name: "session is gone", end: ExecutionEnd{Execution: resumed, Class: failure, SessionGone: true}, step: StepSelect, reason: "why"},
		{name: "session it did not resume is gone", end: ExecutionEnd{Execution: execution(""), Class: failure, SessionGone: true}, reason: "why"},
		{name: "no room", end: ExecutionEnd{Execution: execution("", ""), NoRoom: true}, step: StepRetry, wait: 10 * time.Second, reason: "UTC"},
		{
			name: "own credentials are limited", end: ExecutionEnd{Execution: execution(""), Class: agented.ClassAccountLimit, Own: []agented.Choice{claude}},
			step: StepRetry, wait: 5 * time.Minute, reason: "UTC",
		},
		{
			name: "own credentials, with a fallback", end: ExecutionEnd{Execution: execution(""), Class: agented.ClassAuth, Own: []agented.Choice{claude, codex}},
			step: StepSelect, reason: "why", chain: 1,
		},
		{
			name: "own credentials are refused", end: ExecutionEnd{Execution: execution(""), Class: agented.ClassAuth, Own: []agented.Choice{claude}},
			reason: "correct them there",
		},
	} {
		c.end.Number, c.end.Reason, c.end.Error, c.end.Jitter = c.end.Execution.AttemptNo, "why", "error", 1
		got, err := AfterAttempt(c.end, noon)
		if err != nil || got.Step != c.step || !strings.HasSuffix(got.Reason, c.reason) || len(got.Chain) != c.chain {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if c.step == StepRetry && got.At.Sub(noon) != c.wait {
			t.Errorf("%s: waits %v, want %v", c.name, got.At.Sub(noon), c.wait)
		}
		if (got.Error == "") != (c.step != StepEnd) || got.GiveUp.IsZero() != (c.step == StepEnd) {
			t.Errorf("%s: error %q, gives up at %v", c.name, got.Error, got.GiveUp)
		}
	}
	if _, err := AfterAttempt(ExecutionEnd{Execution: execution(""), Number: 2}, noon); err == nil {
		t.Error("an attempt that does not exist")
	}
}

func TestPlanPlace(t *testing.T) {
	t.Parallel()
	login := Selection{Login: true, Reason: "waits for account claude/a, which needs a login"}
	later := noon.Add(time.Hour)
	for _, c := range []struct {
		name         string
		s            Selection
		gone, failed bool
		want         Placement
	}{
		{"another account", Selection{OK: true, Account: ready("b", nil)}, false, false, Placement{Ready: true, Retry: noon, Reason: "limit; resumes with account claude/b"}},
		{"new session", Selection{OK: true, Account: ready("b", nil)}, true, false, Placement{Ready: true, Retry: noon, Reason: "limit; starts a new session"}},
		{"wait", Selection{At: later, Reason: "waits"}, false, true, Placement{Parked: true, Retry: later, Reason: "limit"}},
		{"wait without a known end", Selection{At: later, EndUnknown: true, Reason: "waits"}, false, false, Placement{Parked: true, Reason: "limit"}},
		{"login", login, false, false, Placement{Parked: true, Reason: "limit"}},
		{
			"failure instead of a login", login, false, true,
			Placement{Reason: "limit; account claude/a, which needs a login", Error: "limit; account claude/a, which needs a login"},
		},
	} {
		if got := (Plan{Step: StepSelect, Reason: "limit"}).Place(c.s, c.gone, c.failed, noon); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestClaimAction(t *testing.T) {
	t.Parallel()
	login := Selection{Login: true, Reason: "waits for account claude/a, which needs a login"}
	both := Selection{Login: true, At: noon, Reason: "waits for account claude/b until later"}
	for _, c := range []struct {
		name         string
		s            Selection
		tests, fails bool
		want         Action
		reason       string
	}{
		{"account", Selection{OK: true}, false, true, ActStart, ""},
		{"wait", both, false, true, ActPark, ""},
		{"login", login, false, false, ActPark, ""},
		{"failure instead of a login", login, false, true, ActFail, "account claude/a, which needs a login"},
		{"test of an account", SelectProbed(nil), true, false, ActCancel, "the account to probe was deleted"},
	} {
		if got, reason := ClaimAction(c.s, c.tests, c.fails); got != c.want || reason != c.reason {
			t.Errorf("%s: %v, %q", c.name, got, reason)
		}
	}
}

func TestSelectOwn_and_probed(t *testing.T) {
	t.Parallel()
	chain := []agented.Choice{{Backend: "claude", Account: "a", Model: "m"}, {Backend: "codex"}}
	if s := SelectOwn(chain); !s.OK || s.Choice != (agented.Choice{Backend: "claude", Model: "m"}) || s.Account.ID != "" || chain[0].Account != "a" {
		t.Errorf("own credentials: %+v, chain %+v", s, chain)
	}
	cooling := ready("a", func(a *agented.Account) { a.State = agented.AccountCooling })
	if s := SelectProbed(&cooling); !s.OK || !s.Probe || s.Choice.Account != "a" {
		t.Errorf("test of an account: %+v", s)
	}
}

func TestAtLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trigger        agented.TriggerID
		limit, running int
		want           bool
	}{{"t", 1, 0, false}, {"t", 1, 1, true}, {"t", 2, 1, false}, {"t", 0, 9, false}, {"", 1, 9, false}} {
		if got := AtLimit(c.trigger, c.limit, c.running); got != c.want {
			t.Errorf("%+v", c)
		}
	}
}

func TestArrive(t *testing.T) {
	t.Parallel()
	idle, runs, queued := TriggerLoad{}, TriggerLoad{First: "exec-1", Running: 1}, TriggerLoad{First: "exec-1", Held: true}
	one := QueueReason(1)
	for _, c := range []struct {
		name  string
		load  TriggerLoad
		limit int
		rule  agented.Overlap
		due   bool
		want  Arrival
	}{
		{"idle", idle, 1, agented.OverlapSkip, true, Arrival{}},
		{"queue at the limit", runs, 1, agented.OverlapQueue, true, Arrival{Held: true, Reason: one}},
		{"queue after held ones", queued, 1, agented.OverlapQueue, true, Arrival{Held: true, Reason: one}},
		{"queue below the limit", runs, 2, agented.OverlapQueue, true, Arrival{}},
		{"no limit", runs, 0, agented.OverlapQueue, true, Arrival{}},
		{"due later", runs, 1, agented.OverlapQueue, false, Arrival{}},
		{"skip", runs, 2, agented.OverlapSkip, true, Arrival{Skip: true, Reason: "skipped: exec-1 of this trigger had not ended"}},
		{"replace a running one", runs, 1, agented.OverlapReplace, true, Arrival{Replace: true, Held: true, Reason: one}},
		{"replace held ones", queued, 1, agented.OverlapReplace, true, Arrival{Replace: true}},
	} {
		if got := Arrive(c.load, c.limit, c.rule, c.due); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	budget := func(scope agented.BudgetScope, target string, spent float64, until time.Duration) agented.Budget {
		return agented.Budget{ID: agented.BudgetID(string(scope) + target), Enabled: true, Scope: scope, Target: target, Limit: 5, Spent: spent, Until: noon.Add(until)}
	}
	hard := []agented.Budget{
		budget(agented.BudgetAll, "", 4, time.Hour),
		budget(agented.BudgetTrigger, "t", 5, time.Hour),
		budget(agented.BudgetTrigger, "u", 9, 3*time.Hour),
		budget(agented.BudgetAccount, "a", 5, 2*time.Hour),
	}
	if b, _ := BlockingBudget("other", hard); b != nil {
		t.Errorf("a trigger without a used-up budget waits for %s", b.ID)
	}
	if b, reason := BlockingBudget("t", hard); b != &hard[1] || !strings.Contains(reason, "2026-11-23 13:00 UTC") {
		t.Errorf("%+v, %q", b, reason)
	}
	hard[0].Spent, hard[0].Until = 5, noon.Add(4*time.Hour)
	if b, _ := BlockingBudget("t", hard); b != &hard[0] {
		t.Errorf("of two, not the one that ends last: %+v", b)
	}
	later := ready("a", func(a *agented.Account) { a.State, a.Until = agented.AccountCooling, noon.Add(9*time.Hour) })
	login := ready("a", func(a *agented.Account) { a.State = agented.AccountNeedsLogin })
	accounts := []agented.Account{ready("a", nil), ready("b", nil), later, login}
	CoolOverBudget(accounts, hard)
	if a := accounts[0]; a.State != agented.AccountCooling || !a.Until.Equal(noon.Add(2*time.Hour)) || a.Evidence == "" {
		t.Errorf("an account without budget left: %+v", a)
	}
	if accounts[1].State != agented.AccountReady || !accounts[2].Until.Equal(noon.Add(9*time.Hour)) || accounts[3].State != agented.AccountNeedsLogin {
		t.Errorf("others: %+v", accounts[1:])
	}
}

func TestExplainWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		e    agented.Execution
		want string
	}{
		{"running", agented.Execution{State: agented.StateRunning, WaitingOn: "x", Reason: "r"}, "r"},
		{"not parked", agented.Execution{State: agented.StatePending, Reason: "r"}, "r"},
		{"first attempt", agented.Execution{State: agented.StatePending, WaitingOn: "waits for account a"}, "waits for account a"},
		{"unknown end", agented.Execution{State: agented.StatePending, AttemptNo: 1, Reason: "limit", WaitingOn: "waits"}, "limit; resumes later: waits"},
		{
			"session",
			agented.Execution{State: agented.StatePending, AttemptNo: 1, Reason: "limit", WaitingOn: "waits", ParkedUntil: noon, Attempts: []agented.Attempt{{SessionID: "s"}}},
			"limit; resumes in the same session at 2026-11-23 12:00 UTC, or earlier if an account is ready",
		},
	} {
		if ExplainWait(&c.e); c.e.Reason != c.want {
			t.Errorf("%s: %q", c.name, c.e.Reason)
		}
	}
}
