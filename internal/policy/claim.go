package policy

import (
	"fmt"

	"github.com/agented/agented"
)

// AtLimit reports whether the limit of its trigger holds an execution; a limit
// of 0 means none.
func AtLimit(trigger agented.TriggerID, limit, running int) bool {
	return trigger != "" && limit > 0 && running >= limit
}

// QueueReason returns why an execution waits for others of its trigger. It does
// not contain their number, which would be outdated as soon as one of them
// ends.
func QueueReason(limit int) string {
	if limit == 1 {
		return "waits for earlier executions of this trigger: it runs one at a time"
	}
	return fmt.Sprintf("waits for earlier executions of this trigger: it runs at most %d at a time", limit)
}

// BlockingBudget returns the used-up budget of its trigger or of all executions
// that an execution waits for, and the reason: of several, the one whose period
// ends last; nil if there is none. hard are the enabled hard budgets.
func BlockingBudget(trigger agented.TriggerID, hard []agented.Budget) (*agented.Budget, string) {
	var by *agented.Budget
	for i := range hard {
		b := &hard[i]
		if b.Scope != agented.BudgetAccount && b.Reached() && b.Counts(trigger, "") && (by == nil || b.Until.After(by.Until)) {
			by = b
		}
	}
	if by == nil {
		return nil, ""
	}
	return by, fmt.Sprintf("waits until %s: %s; it resumes earlier if the budget is raised", agented.Clock(by.Until), by.Sentence())
}

// Action is what a claim does with the next execution of the queue.
type Action int

// The actions.
const (
	ActStart  Action = iota // start an attempt with the selected account
	ActPark                 // let it wait in its account queue
	ActCancel               // it exists only to test an account, which cannot be used now
	ActFail                 // it fails instead of waiting for a login
)

// ClaimAction returns what a claim does with an execution, given its selection
// of an account, and the reason if it ends. tests reports that it exists only
// to test an account, and needsLogin that it fails instead of waiting for a
// login; see [Selection.NeedsLogin].
func ClaimAction(s Selection, tests, needsLogin bool) (Action, string) {
	switch {
	case s.OK:
		return ActStart, ""
	case tests:
		return ActCancel, s.Reason
	case needsLogin && s.NeedsLogin():
		return ActFail, s.loginError()
	}
	return ActPark, ""
}

// TriggerLoad is the pending and running executions of a trigger.
type TriggerLoad struct {
	First   agented.ExecutionID // the earliest that has not ended; empty: none
	Running int
	Held    bool // some are held back by the trigger's limit
}

// Arrival is what happens to a new execution of a trigger.
type Arrival struct {
	Skip    bool   // it is not queued, because an earlier one has not ended
	Replace bool   // the earlier ones end in its favour
	Held    bool   // it waits for earlier ones
	Reason  string // for Skip and Held
}

// Arrive decides what happens to a new execution of a trigger with the given
// load, limit (0 means none) and overlap rule. due reports that it could run
// now: one that is due later must not delay those that are due earlier, and the
// claim holds it back when it becomes due.
func Arrive(load TriggerLoad, limit int, rule agented.Overlap, due bool) Arrival {
	var out Arrival
	if load.First != "" {
		switch rule {
		case agented.OverlapSkip:
			return Arrival{Skip: true, Reason: fmt.Sprintf("skipped: %s of this trigger had not ended", load.First)}
		case agented.OverlapReplace:
			out.Replace = true
			load.Held = false // they end
		}
	}
	if due && limit > 0 && (load.Running >= limit || load.Held) {
		out.Held, out.Reason = true, QueueReason(limit)
	}
	return out
}
