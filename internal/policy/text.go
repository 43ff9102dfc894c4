package policy

import (
	"time"

	"github.com/agented/agented"
)

// ExplainWait sets the reason of a pending execution that waits in an account
// queue.
func ExplainWait(e *agented.Execution) {
	if e.State != agented.StatePending || e.WaitingOn == "" {
		return
	}
	if e.AttemptNo == 0 {
		e.Reason = e.WaitingOn
		return
	}
	next := "resumes"
	for i := range e.Attempts {
		if a := &e.Attempts[i]; a.SessionID != "" && !a.SessionGone {
			next = "resumes in the same session"
		}
	}
	if e.ParkedUntil.IsZero() {
		e.Reason += "; " + next + " later: " + e.WaitingOn
		return
	}
	e.Reason += "; " + next + " at " + agented.Clock(e.ParkedUntil) + ", or earlier if an account is ready"
}

func orTime(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}
