package agented

import (
	"fmt"
	"time"
)

// RetryPolicy is what a trigger does after an attempt that did not succeed. The
// zero value is the default: limits, overloads and network failures are waited
// out, and a failure of the agent is final.
type RetryPolicy struct {
	MaxAttempts        int  `json:"max_attempts,omitempty"`          // charged attempts; default 1 for failures of the agent, 5 for network failures
	BaseSeconds        int  `json:"base_seconds,omitempty"`          // first delay of the backoff; default 30
	CapSeconds         int  `json:"cap_seconds,omitempty"`           // longest delay of the backoff; default 900
	GiveUpAfterSeconds int  `json:"give_up_after_seconds,omitempty"` // since the start of the first attempt, including attempts that are not charged; default eight days
	OnFailure          bool `json:"on_failure,omitempty"`            // also retry when the agent failed
	OnInterrupted      bool `json:"on_interrupted,omitempty"`        // also retry when the attempt was lost (shim killed, machine down)
}

// Defaults and limits of a RetryPolicy.
const (
	DefaultRetryBase  = 30
	DefaultRetryCap   = 15 * 60
	DefaultGiveUp     = 8 * 24 * 3600 // a weekly limit plus a day
	DefaultMaxNetwork = 5
	MaxRetryAttempts  = 100
	MaxGiveUp         = 60 * 24 * 3600
)

// Deadline returns when an execution gives up whose first attempt began at that
// time.
func (p RetryPolicy) Deadline(began time.Time) time.Time {
	return began.Add(time.Duration(orDefault(p.GiveUpAfterSeconds, DefaultGiveUp)) * time.Second)
}

// Validate returns every invalid field of the policy with its fix. Fields are
// named as in the API.
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
