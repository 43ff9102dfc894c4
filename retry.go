package agented

import (
	"fmt"
	"math"
	"time"
)

// RetryPolicy says what a trigger does after an attempt that did not succeed.
// The zero value is the default: limits, overloads and broken networks are
// waited out, a failure of the agent is final.
type RetryPolicy struct {
	MaxAttempts        int  `json:"max_attempts,omitempty"`          // charged attempts; default 1 for failures of the agent, 5 for broken networks
	BaseSeconds        int  `json:"base_seconds,omitempty"`          // first pause of the backoff; default 30
	CapSeconds         int  `json:"cap_seconds,omitempty"`           // longest pause of the backoff; default 900
	GiveUpAfterSeconds int  `json:"give_up_after_seconds,omitempty"` // since the first attempt's start, also for what is not charged; default eight days
	OnFailure          bool `json:"on_failure,omitempty"`            // try again also when the agent failed
	OnInterrupted      bool `json:"on_interrupted,omitempty"`        // try again also when the attempt was lost (shim killed, machine down)
}

// Defaults and bounds of a RetryPolicy.
const (
	DefaultRetryBase   = 30
	DefaultRetryCap    = 15 * 60
	DefaultGiveUp      = 8 * 24 * 3600 // a weekly limit and a day
	DefaultMaxNetwork  = 5
	MaxRetryAttempts   = 100
	MaxGiveUp          = 60 * 24 * 3600
	MaxEarlyProbe      = 15 * time.Minute // a parked execution looks at most so often before its time
	unknownLimitPause  = 5 * time.Minute  // first pause for a limit without a time
	longestLimitPause  = 5 * time.Hour    // and the longest
	longestJitterShare = 10               // jitter of a printed time: a tenth of the wait, at most two minutes
)

// Ended is what RetryPolicy.Next looks at, beside the policy.
type Ended struct {
	Class   Class
	Until   time.Time // when the limit is said to lift; zero if unknown
	Charged int       // attempts so far that were charged, this one included
	Like    int       // ends in a row of this class, this one included: of the account or backend that rests for it, else of the execution
	Began   time.Time // start of the first attempt
	Resumes bool      // the next attempt can go on in the same session
}

// Next says when to try again after an attempt, and false when its end is the
// execution's. Jitter is from 0 to 1. It is the only place that knows backoff.
func (p RetryPolicy) Next(e Ended, now time.Time, jitter float64) (at time.Time, again bool) {
	base, ceiling := float64(orDefault(p.BaseSeconds, DefaultRetryBase)), float64(orDefault(p.CapSeconds, DefaultRetryCap))
	backoff := func(first, longest float64) time.Time {
		seconds := math.Min(longest, first*math.Pow(2, float64(min(max(e.Like-1, 0), 30))))
		return now.Add(time.Duration(seconds * (0.5 + jitter/2) * float64(time.Second)))
	}
	switch e.Class {
	case ClassAccountLimit, ClassThrottle:
		at = backoff(unknownLimitPause.Seconds(), longestLimitPause.Seconds())
		if e.Class == ClassThrottle {
			at = backoff(base, ceiling)
		}
		if !e.Until.IsZero() && e.Until.After(now) {
			spread := min(e.Until.Sub(now)/longestJitterShare, 2*time.Minute)
			at = lifted(e.Until, now).Add(time.Duration(jitter * float64(spread)))
		}
	case ClassOverload:
		at = backoff(base, ceiling)
		if e.Until.After(at) {
			at = e.Until
		}
	case ClassAuth, ClassBilling:
		// The account is out until a person acts; another may do at once. Pick
		// says so, and gives the reason while there is none.
		at = now
	case ClassNetwork:
		if e.Charged >= orDefault(p.MaxAttempts, DefaultMaxNetwork) {
			return time.Time{}, false
		}
		at = backoff(base, ceiling)
	case ClassAgentFailure:
		if !p.OnFailure || e.Charged >= orDefault(p.MaxAttempts, 2) {
			return time.Time{}, false
		}
		at = backoff(base, ceiling)
	case ClassInterrupted:
		if !p.OnInterrupted {
			return time.Time{}, false
		}
		at = backoff(1, ceiling)
	default:
		return time.Time{}, false
	}
	// What waits for an account or a provider ends when its time is over, and
	// may go on elsewhere before; what knows its time ends now if that is too late.
	by := at
	if e.Class.OfAccount() || e.Class == ClassThrottle || e.Class == ClassOverload {
		by = now
	}
	if !e.Began.IsZero() && by.After(p.Deadline(e.Began)) {
		return time.Time{}, false
	}
	return at.UTC().Truncate(time.Microsecond), true
}

// lifted is when a limit of which that time was printed has lifted for sure: a
// clock without seconds is behind by up to a minute. Of one that is so near, the
// attempt that finds out is told again sooner than it would wait here.
func lifted(until, now time.Time) time.Time {
	if until.Truncate(time.Minute).Equal(until) && until.Sub(now) > time.Minute {
		return until.Add(time.Minute)
	}
	return until
}

// Deadline is when an execution whose first attempt began at that time gives up.
func (p RetryPolicy) Deadline(began time.Time) time.Time {
	return began.Add(time.Duration(orDefault(p.GiveUpAfterSeconds, DefaultGiveUp)) * time.Second)
}

// Validate returns every field of the policy that cannot stand. Names of fields
// are those of the API.
func (p RetryPolicy) Validate() []Field {
	var bad []Field
	check := func(name string, n, most int) {
		if n < 0 || n > most {
			bad = append(bad, Field{"retry." + name, fmt.Sprintf("must be from 0 (the default) to %d", most)})
		}
	}
	check("max_attempts", p.MaxAttempts, MaxRetryAttempts)
	check("base_seconds", p.BaseSeconds, MaxGiveUp)
	check("cap_seconds", p.CapSeconds, MaxGiveUp)
	check("give_up_after_seconds", p.GiveUpAfterSeconds, MaxGiveUp)
	return bad
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}
