package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// Parameters of waits that a trigger's policy does not set.
const (
	UnknownLimitPause = 5 * time.Minute // first delay for a limit without a reset time; it doubles
	UnknownLimitMax   = 5 * time.Hour   // longest such delay
	RoomPause         = 5 * time.Second // first delay after a start that failed because the disk was full; it doubles
	RoomLimit         = 5 * time.Minute // longest such delay
	jitterShare       = 10              // jitter of a printed time: a tenth of the wait, at most maxSpread
	maxSpread         = 2 * time.Minute
)

// Ended is the input of NextAttempt: an attempt that ended.
type Ended struct {
	Class               agented.Class
	Until               time.Time // when the limit resets; zero if unknown
	Charged             int       // charged attempts so far, including this one
	ConsecutiveFailures int       // consecutive ends of this class, including this one: of the account or backend that cools down for it, otherwise of the execution
	Began               time.Time // start of the first attempt
	Repairs, Repaired   int       // for no_effect: attempts that may repair the outcome, and those so far
}

// NextAttempt returns when to try again after an attempt, and false if no
// attempt follows. Jitter is from 0 to 1. NextAttempt is the only
// implementation of backoff.
func NextAttempt(p agented.RetryPolicy, e Ended, now time.Time, jitter float64) (at time.Time, again bool) {
	base, ceiling := float64(cmp.Or(p.BaseSeconds, agented.DefaultRetryBase)), float64(cmp.Or(p.CapSeconds, agented.DefaultRetryCap))
	backoff := func(first, longest float64) time.Time {
		seconds := math.Min(longest, first*math.Pow(2, float64(min(max(e.ConsecutiveFailures-1, 0), 30))))
		return now.Add(time.Duration(seconds * (0.5 + jitter/2) * float64(time.Second)))
	}
	switch e.Class {
	case agented.ClassAccountLimit, agented.ClassThrottle:
		at = backoff(UnknownLimitPause.Seconds(), UnknownLimitMax.Seconds())
		if e.Class == agented.ClassThrottle {
			at = backoff(base, ceiling)
		}
		if !e.Until.IsZero() && e.Until.After(now) {
			spread := min(e.Until.Sub(now)/jitterShare, maxSpread)
			at = lifted(e.Until, now).Add(time.Duration(jitter * float64(spread)))
		}
	case agented.ClassOverload:
		at = backoff(base, ceiling)
		if e.Until.After(at) {
			at = e.Until
		}
	case agented.ClassAuth, agented.ClassBilling:
		// The account is unusable until a person acts, but another one may be
		// ready. SelectAccount decides, and returns the reason while there is none.
		at = now
	case agented.ClassNetwork:
		if e.Charged >= cmp.Or(p.MaxAttempts, agented.DefaultMaxNetwork) {
			return time.Time{}, false
		}
		at = backoff(base, ceiling)
	case agented.ClassAgentFailure:
		if !p.OnFailure || e.Charged >= cmp.Or(p.MaxAttempts, 2) {
			return time.Time{}, false
		}
		at = backoff(base, ceiling)
	case agented.ClassNoEffect:
		if e.Repaired >= e.Repairs {
			return time.Time{}, false
		}
		at = now
	case agented.ClassInterrupted:
		if !p.OnInterrupted {
			return time.Time{}, false
		}
		at = backoff(1, ceiling)
	default:
		return time.Time{}, false
	}
	// Executions that wait for an account or a provider give up when their
	// deadline passes, and may resume on another account earlier. If the reset
	// time is known and after the deadline, the execution ends now.
	by := at
	if Waits(e.Class) {
		by = now
	}
	if !e.Began.IsZero() && by.After(p.Deadline(e.Began)) {
		return time.Time{}, false
	}
	return at.UTC().Truncate(time.Microsecond), true
}

// lifted returns when a limit with a printed time has certainly been lifted: a
// time without seconds is early by up to a minute. For a reset that is very
// near, the next probe returns sooner than this margin.
func lifted(until, now time.Time) time.Time {
	if until.Truncate(time.Minute).Equal(until) && until.Sub(now) > time.Minute {
		return until.Add(time.Minute)
	}
	return until
}

// Waits reports whether an execution waits for an account or a provider after
// an end of the class, rather than for its own backoff.
func Waits(c agented.Class) bool {
	return c.OfAccount() || c == agented.ClassThrottle || c == agented.ClassOverload
}

// ExecutionEnd is the end of an execution's latest attempt.
type ExecutionEnd struct {
	Execution   *agented.Execution // with its attempts, as before the end
	Number      int                // of the attempt
	Class       agented.Class
	Reason      string    // of the execution, if no attempt follows
	Error       string    // the same
	Until       time.Time // when the limit resets, as printed; zero: unknown
	SessionGone bool      // the session to resume does not exist any more
	NoRoom      bool      // nothing ran because the disk was full
	StartedAt   time.Time // of the attempt; zero: unknown
	CancelAsked bool
	Limits      int              // consecutive ends of this kind of the account or provider; 0: they do not count them
	Own         []agented.Choice // its fallback chain, if the attempt used credentials of its own instead of an account
	Policy      agented.RetryPolicy
	Repairs     int     // attempts that may repair an outcome that is not the expected one
	Jitter      float64 // from 0 to 1
}

// Step is what follows an attempt's end.
type Step int

// The steps.
const (
	StepEnd    Step = iota // the execution ends
	StepRetry              // it is tried again at Plan.At
	StepSelect             // it needs an account: see Plan.Place
)

// Plan is the decision after an attempt's end.
type Plan struct {
	Step   Step
	At     time.Time        // for StepRetry
	GiveUp time.Time        // when the execution gives up, unless it ends
	Reason string           // of the execution, for people
	Error  string           // the same for its end; empty if it continues
	Chain  []agented.Choice // the execution's new fallback chain; nil: unchanged
}

// AfterAttempt decides whether and when another attempt follows.
func AfterAttempt(e ExecutionEnd, now time.Time) (Plan, error) {
	i := slices.IndexFunc(e.Execution.Attempts, func(x agented.Attempt) bool { return x.Number == e.Number })
	if i < 0 {
		return Plan{}, fmt.Errorf("%s has no attempt %d", e.Execution.ID, e.Number)
	}
	out := Plan{Reason: e.Reason, Error: e.Error}
	began := orTime(e.Execution.Attempts[0].StartedAt, orTime(e.StartedAt, now))
	next, again := e.next(i, began, now)
	own := e.Own
	if len(own) > 0 && Waits(e.Class) {
		switch refused := e.Class == agented.ClassAuth || e.Class == agented.ClassBilling; {
		case len(own) > 1: // its own credentials apply to the first choice only
			out.Chain, own = own[1:], nil
		case refused:
			again = false
			out.Reason += "; it used credentials from the trigger's env instead of an account: correct them there"
			out.Error = out.Reason
		}
	}
	if tests := e.Execution.ProbeAccount != ""; !again || tests || e.CancelAsked {
		if e.Class != "" && e.Execution.AttemptNo > 1 && !tests && !e.CancelAsked {
			out.Reason = fmt.Sprintf("%s; gave up after %s", out.Reason, format.Plural(e.Execution.AttemptNo, "attempt", "attempts"))
			out.Error = out.Reason
		}
		return out, nil
	}
	out.Error, out.GiveUp = "", e.Policy.Deadline(began)
	if len(own) > 0 || !Waits(e.Class) && !e.SessionGone {
		out.Step, out.At = StepRetry, next
		if e.Class == agented.ClassNoEffect {
			out.Reason += "; another attempt repairs it"
			return out, nil
		}
		out.Reason += "; tries again at " + next.Format("2006-01-02 15:04:05") + " UTC"
		return out, nil
	}
	out.Step = StepSelect
	return out, nil
}

// next returns when the execution may be tried again after its attempt i, and
// false if no attempt follows.
func (e ExecutionEnd) next(i int, began, now time.Time) (time.Time, bool) {
	attempts := e.Execution.Attempts[:i+1]
	alike, charged, repaired := 1, 0, 0
	for j := i - 1; j >= 0 && attempts[j].Class == e.Class; j-- {
		alike++
	}
	for _, x := range attempts[:i] {
		if x.Class.Charged() {
			charged++
		}
		if x.Class == agented.ClassNoEffect {
			repaired++
		}
	}
	if e.Class.Charged() {
		charged++
	}
	if e.Limits > 0 {
		alike = e.Limits
	}
	switch {
	case e.NoRoom: // not caused by the attempt
		return now.Add(min(RoomPause<<min(alike-1, 10), RoomLimit)), true
	case e.SessionGone && attempts[i].ResumedFrom != "": // not caused by the attempt either: repeat it from its start
		return now, true
	}
	return NextAttempt(e.Policy, Ended{Class: e.Class, Until: e.Until, Charged: charged, ConsecutiveFailures: alike, Began: began, Repairs: e.Repairs, Repaired: repaired}, now, e.Jitter)
}

// Placement is where an execution waits for its next attempt.
type Placement struct {
	Ready  bool      // it returns to its place in the queue
	Parked bool      // it waits in its account queue for the reason of the selection
	Retry  time.Time // expected time of the next attempt; zero: none or unknown
	Reason string    // of the execution
	Error  string    // set if it ends as failed: it is neither ready nor parked
}

// Place decides where an execution of a plan with StepSelect waits, given the
// selection of an account now. The new cooldowns are known then: an execution
// that can resume with another account does so immediately. needsLogin reports
// that it fails instead of waiting for a login; see [Selection.NeedsLogin].
func (p Plan) Place(s Selection, sessionGone, needsLogin bool, now time.Time) Placement {
	switch {
	case s.OK && sessionGone:
		return Placement{Ready: true, Retry: now, Reason: p.Reason + "; starts a new session"}
	case s.OK:
		return Placement{Ready: true, Retry: now, Reason: p.Reason + "; resumes with account " + s.Account.Label()}
	case needsLogin && s.NeedsLogin():
		text := p.Reason + "; " + s.loginError()
		return Placement{Reason: text, Error: text}
	case s.EndUnknown:
		return Placement{Parked: true, Reason: p.Reason}
	}
	return Placement{Parked: true, Reason: p.Reason, Retry: s.At}
}
