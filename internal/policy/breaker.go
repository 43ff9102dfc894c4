package policy

import (
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// Parameters of the circuit breaker of a provider.
const (
	BreakerAfter = 5                // consecutive failures
	BreakerPause = time.Minute      // first cooldown; it doubles
	BreakerLimit = 15 * time.Minute // longest cooldown
)

// Provider is the state of a backend's provider.
type Provider struct {
	Failures int // consecutive; concurrent attempts count once
	Cooldown
	Probe agented.ExecutionID // execution that tests it; empty: none
}

// Reach is what an attempt's end shows about the way to its provider.
type Reach int

// The findings.
const (
	ReachUnknown Reach = iota // nothing
	ReachFailed               // the provider failed: see ProviderOutcome.Provider
	ReachRefused              // it answered: its cooldown ends
	ReachWorked               // a model responded: a cooldown of this server's address ends as well
	ReachRetest               // the probe was inconclusive: another one is due now
)

// ProviderOutcome is the effect of an attempt's end on its backend.
type ProviderOutcome struct {
	Reach
	Provider Provider // for ReachFailed: the new state
	Failures int      // for ReachFailed: consecutive failures, at least 1
}

// EndOnProvider returns the effect of an attempt's end on its backend: it counts
// failures of the provider, opens the circuit breaker after BreakerAfter
// consecutive ones, and closes it when an attempt got a response. known reports
// whether the backend has any state, and probes whether the execution tests it.
func EndOnProvider(was Provider, known, probes bool, e AttemptEnd, now time.Time) ProviderOutcome {
	switch {
	case e.Class.OfProvider():
		p := failed(was, probes, e, now)
		return ProviderOutcome{Reach: ReachFailed, Provider: p, Failures: max(p.Failures, 1)}
	case !known:
		return ProviderOutcome{}
	case e.Responded:
		return ProviderOutcome{Reach: ReachWorked}
	case e.blamesAccount():
		return ProviderOutcome{Reach: ReachRefused}
	case probes:
		return ProviderOutcome{Reach: ReachRetest}
	}
	return ProviderOutcome{}
}

// failed returns the provider after another failure.
func failed(p Provider, probes bool, e AttemptEnd, now time.Time) Provider {
	cooling := !p.Until.IsZero() && now.Before(p.Until)
	if probes {
		p.Probe = ""
	}
	if cooling && !probes {
		return p // concurrent attempts add no information
	}
	p.Failures++
	switch {
	case probes && e.Class == agented.ClassNetwork, p.Failures >= BreakerAfter:
		pause := min(BreakerPause<<min(max(p.Failures-BreakerAfter, 0), 10), BreakerLimit)
		p.Until = now.Add(pause)
		p.Reason = fmt.Sprintf("waits for %s until %s: it had %s in a row, the latest: %s",
			e.Backend, agented.Clock(p.Until), format.Plural(p.Failures, "time", "times"), format.Truncate(e.Reason, 300))
	case e.Class == agented.ClassOverload:
		p.Until, _ = NextAttempt(agented.RetryPolicy{}, Ended{Class: e.Class, Until: e.Until, ConsecutiveFailures: p.Failures}, now, e.Jitter)
		p.Reason = fmt.Sprintf("waits for %s until %s: %s", e.Backend, agented.Clock(p.Until), format.Truncate(e.Reason, 300))
	}
	return p
}
