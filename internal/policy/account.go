package policy

import (
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// ProbeTrust is how long a probe runs before it counts as successful. The first
// attempt after a limit can take hours, and providers reject requests within
// seconds.
const ProbeTrust = 2 * time.Minute

// MaxEarlyProbe is the interval at which a parked execution may probe before
// its time.
const MaxEarlyProbe = 15 * time.Minute

// AddressWindow is the time within which throttles of two accounts of a backend
// mean that this server's address is limited.
const AddressWindow = 2 * time.Minute

// AttemptResult describes what the end of an attempt means for its account.
type AttemptResult struct {
	Class       agented.Class
	Until       time.Time // when to try again, from NextAttempt
	Evidence    string
	TimePrinted bool // the CLI printed the time in Until
	Responded   bool // the model responded: the attempt succeeded, or failed for its own reasons
	Probe       bool // the attempt was a probe
}

// AccountAfter returns the account updated for the end of an attempt.
func AccountAfter(a agented.Account, u AttemptResult, now time.Time) agented.Account {
	switch {
	case u.Class == agented.ClassAuth, u.Class == agented.ClassBilling:
		a.State = agented.AccountNeedsLogin
		if u.Class == agented.ClassBilling {
			a.State = agented.AccountOutOfCredit
		}
		a.Until, a.Evidence, a.Cause = time.Time{}, u.Evidence, u.Class
	case u.Class == agented.ClassAccountLimit, u.Class == agented.ClassThrottle:
		switch {
		case u.Probe || a.State == agented.AccountReady || cooling(&a) && !now.Before(a.Until):
			a.State, a.Until, a.Evidence, a.Cause = agented.AccountCooling, u.Until, u.Evidence, u.Class
			a.ConsecutiveLimits++
		case cooling(&a) && u.TimePrinted && u.Until.After(a.Until):
			// The attempt ran at the same time as the one that hit the limit
			// first.
			a.Until, a.Evidence, a.Cause = u.Until, u.Evidence, u.Class
		}
	case u.Responded && u.Probe, u.Responded && a.State == agented.AccountReady:
		a.State, a.Until, a.Evidence, a.Cause, a.ConsecutiveLimits = agented.AccountReady, time.Time{}, "", "", 0
	case u.Responded && cooling(&a) && now.Before(a.Until) && !now.Before(a.ProbedAt.Add(MaxEarlyProbe)):
		a.Until = now // the limit may have been lifted early: probe now
	case u.Probe && a.State == agented.AccountCooling:
		a.Until = now // the probe was inconclusive: probe again
		if u.Class == agented.ClassNetwork || u.Class == agented.ClassOverload {
			a.Until = now.Add(agented.DefaultRetryBase * time.Second)
		}
	}
	if u.Probe {
		a.Probing = false
	}
	return a
}

// AttemptEnd is an attempt's end, as far as it concerns accounts and providers.
type AttemptEnd struct {
	Execution agented.ExecutionID
	Backend   string
	Class     agented.Class // empty: account and provider did not cause it
	Reason    string
	Evidence  string    // empty: Reason
	Until     time.Time // when the limit resets, as printed; zero: unknown
	Responded bool      // the model responded
	State     agented.State
	Used      bool    // the CLI reported tokens of the model's output
	Tests     bool    // the execution exists only to test its account
	Jitter    float64 // from 0 to 1
}

// blamesAccount reports whether the class shows that the provider was reached
// and refused the account.
func (e AttemptEnd) blamesAccount() bool {
	return e.Class.OfAccount() || e.Class == agented.ClassThrottle
}

// ShowsUse reports whether an attempt's end shows that its account works or was refused, with the
// reason of a refusal. A failure shows that the account works only if the model was used: a CLI that
// exits with an error before that may have been refused in words that no rule detects. An end that
// Agented, a user or the machine caused shows nothing, except of an execution that tests its account.
func ShowsUse(e AttemptEnd) (shows, works bool, reason string) {
	switch {
	case e.State == agented.StateSuccess, e.Used && (e.Class == agented.ClassAgentFailure || e.Class == agented.ClassNoEffect):
		return true, true, ""
	case e.Class == agented.ClassInterrupted, e.Class == "" && !e.Tests, e.State == agented.StateCancelled:
		return false, false, ""
	}
	reason = e.Evidence
	if reason == "" {
		reason = e.Reason
	}
	return true, false, format.Truncate(reason, agented.MaxEvidence)
}

// AccountOutcome is the effect of an attempt's end on its account.
type AccountOutcome struct {
	Account agented.Account
	Probe   agented.ExecutionID // execution that probes the account; empty: none
	Wake    bool                // executions that wait for an account check again
	Limits  int                 // consecutive limits of the account; 0: the end was none
}

// EndOnAccount returns the effect of an attempt's end on its account. probe is
// the execution that probes it.
func EndOnAccount(a agented.Account, probe agented.ExecutionID, e AttemptEnd, now time.Time) AccountOutcome {
	u := AttemptResult{
		Class: e.Class, Evidence: e.Evidence, TimePrinted: e.Until.After(now), Responded: e.Responded,
		Probe: probe == e.Execution || e.Tests && (e.Responded || e.blamesAccount()),
	}
	if u.Evidence == "" {
		u.Evidence = format.Truncate(e.Reason, agented.MaxEvidence)
	}
	// The account is shared: its cooldown does not depend on a trigger's policy.
	u.Until, _ = NextAttempt(agented.RetryPolicy{}, Ended{Class: e.Class, Until: e.Until, ConsecutiveFailures: a.ConsecutiveLimits + 1}, now, e.Jitter)
	out := AccountOutcome{Account: AccountAfter(a, u, now), Probe: probe}
	out.Account.Evidence = format.Truncate(out.Account.Evidence, agented.MaxEvidence)
	if !out.Account.Probing {
		out.Probe = ""
	}
	out.Wake = out.Account.State != a.State || !out.Account.Until.Equal(a.Until) || out.Account.Probing != a.Probing
	if e.Class == agented.ClassAccountLimit || e.Class == agented.ClassThrottle {
		out.Limits = max(out.Account.ConsecutiveLimits, 1)
	}
	return out
}

// AddressCooldown returns the cooldown of a whole backend after a throttle of
// one account until a time, and false if no other account of the backend was
// throttled within AddressWindow.
func AddressCooldown(backend string, othersThrottled int, until time.Time) (Cooldown, bool) {
	if othersThrottled == 0 {
		return Cooldown{}, false
	}
	return Cooldown{Until: until, Reason: fmt.Sprintf("waits for %s until %s: several of its accounts received too many requests from this address",
		backend, agented.Clock(until))}, true
}

// Use is what the start of an attempt means for its account.
type Use int

// The uses.
const (
	UseReady     Use = iota // nothing changes
	UseProbe                // the attempt becomes the account's probe
	UseConfirmed            // the account's probe has run long enough: the account is ready
)

// UseOf returns what an attempt that starts now means for the selected account.
func UseOf(s Selection, now time.Time) Use {
	a := s.Account
	switch {
	case s.Probe:
		return UseProbe
	case a.Probing && a.State == agented.AccountCooling && !now.Before(a.Until):
		return UseConfirmed
	}
	return UseReady
}

// CoolOverBudget marks the accounts whose hard budgets are used up as cooling
// until the period ends.
func CoolOverBudget(accounts []agented.Account, hard []agented.Budget) {
	for i := range accounts {
		a := &accounts[i]
		for j := range hard {
			b := &hard[j]
			if b.Scope != agented.BudgetAccount || b.Target != string(a.ID) || !b.Reached() {
				continue
			}
			if a.State == agented.AccountReady || a.State == agented.AccountCooling && a.Until.Before(b.Until) {
				a.State, a.Until, a.Probing, a.Evidence = agented.AccountCooling, b.Until, false, b.Sentence()
			}
		}
	}
}
