// Package policy makes the decisions of the queue: which account an attempt
// uses, what an attempt's end means for its account, its provider and its
// execution, and what a claim does with the next execution.
//
// All functions are pure: facts and the current time in, decision out. Package
// store loads the facts and writes the decision in one transaction.
package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Cooldown is a period without new attempts, and its reason. When its time has
// passed it is half open: a single attempt tests whether the limit has been
// lifted.
type Cooldown struct {
	Until   time.Time
	Reason  string
	Probing bool // a probe attempt is running; Until is when it counts as successful
}

// Active reports whether the cooldown is active at now.
func (r Cooldown) Active(now time.Time) bool { return now.Before(r.Until) }

// Candidates is the input of SelectAccount, read in the transaction that acts
// on its result.
type Candidates struct {
	Accounts []agented.Account   // of all backends in the chain
	Backends map[string]Cooldown // circuit breakers, overloads and throttles, by backend
	Session  *agented.Home       // location of the session to resume; accounts with access to it are preferred
	Now      time.Time
}

// Selection is the result of SelectAccount: an account, or why none is
// available and when to check again.
type Selection struct {
	Choice       agented.Choice
	Account      agented.Account
	Probe        bool // the account was cooling: this attempt tests it for all others
	BackendProbe bool // the same for the backend
	OK           bool
	WaitsForSlot bool      // if not OK: a slot of an account may become free when an attempt ends
	EndUnknown   bool      // At bounds a wait whose end is unknown
	At           time.Time // if not OK: when to check again; zero: a person must act
	Login        bool      // if not OK: it waits for a login
	Reason       string    // if not OK: the reason in one sentence
}

// NeedsLogin reports whether nothing but a login ends the wait.
func (s Selection) NeedsLogin() bool { return !s.OK && s.Login && s.At.IsZero() }

// loginError returns the reason of an execution that fails instead of waiting
// for a login.
func (s Selection) loginError() string {
	return "account " + strings.TrimPrefix(s.Reason, "waits for account ")
}

// MaxAccountWait bounds how long an execution waits for a condition without a
// known end. An event that ends the wait wakes the execution earlier.
const MaxAccountWait = 15 * time.Minute

// SelectAccount selects the account for an attempt: from the first entry of the
// chain that has a ready account, the least recently used one. While a probe of
// an account that was cooling runs, no other attempt gets that account.
func SelectAccount(chain []agented.Choice, s Candidates) Selection {
	var best Selection
	room := false
	for _, c := range chain {
		rest, rests := s.Backends[c.Backend]
		if rest.Active(s.Now) {
			best = sooner(best, Selection{At: rest.Until, Reason: rest.Reason})
			continue
		}
		ready, wait := candidates(c, s)
		if len(ready) > 0 {
			a := ready[0]
			return Selection{Choice: c, Account: a, Probe: cooling(&a), BackendProbe: rests && !rest.Probing, OK: true}
		}
		room = room || wait.WaitsForSlot
		best = sooner(best, wait)
	}
	best.WaitsForSlot = room
	if best.Reason == "" {
		best.Reason = "waits for an account: the chain names no account that exists; create one, or name another in the trigger"
	}
	return best
}

// SelectProbed selects the account that an execution tests; nil means that it
// was deleted.
func SelectProbed(a *agented.Account) Selection {
	if a == nil {
		return Selection{Reason: "the account to probe was deleted"}
	}
	return Selection{
		OK: true, Account: *a, Choice: agented.Choice{Backend: a.Backend, Account: a.ID}, Probe: a.State == agented.AccountCooling,
	}
}

// SelectOwn selects the first entry of the chain for an execution whose own
// environment contains its credentials, without an account.
func SelectOwn(chain []agented.Choice) Selection {
	c := chain[0]
	c.Account = ""
	return Selection{OK: true, Choice: c}
}

// cooling reports whether the account is cooling and no probe is running.
func cooling(a *agented.Account) bool { return a.State == agented.AccountCooling && !a.Probing }

// candidates returns the usable accounts in order of preference, or what to
// wait for if there are none.
func candidates(c agented.Choice, s Candidates) (ready []agented.Account, wait Selection) {
	room := false
	for _, a := range s.Accounts {
		switch {
		case a.Backend != c.Backend || c.Account != "" && !named(&a, string(c.Account)):
		case !a.Enabled:
			wait = sooner(wait, Selection{Reason: "waits for account " + a.Label() + ", which is disabled: enable it"})
		case a.State == agented.AccountNeedsLogin:
			wait = sooner(wait, Selection{Reason: "waits for account " + a.Label() + ", which needs a login" + because(a.Evidence) + ": " + a.LoginFix(), Login: true})
		case a.State == agented.AccountOutOfCredit:
			wait = sooner(wait, Selection{Reason: "waits for account " + a.Label() + ", which is out of credit" + because(a.Evidence) + ": add credit, then run agented account reset " + a.Label()})
		case a.State == agented.AccountCooling && s.Now.Before(a.Until) && a.Probing:
			wait = sooner(wait, Selection{At: a.Until, Reason: "waits for the probe of account " + a.Label() + ", which tests whether its limit has been lifted"})
		case a.State == agented.AccountCooling && s.Now.Before(a.Until):
			wait = sooner(wait, Selection{At: a.Until, Reason: "waits for account " + a.Label() + " until " + agented.Clock(a.Until) + because(a.Evidence)})
		case a.MaxConcurrent > 0 && a.Running >= a.MaxConcurrent:
			room = true
			wait = sooner(wait, Selection{At: s.Now.Add(MaxAccountWait), EndUnknown: true, Reason: "waits for account " + a.Label() + ", which has reached its max_concurrent"})
		default:
			ready = append(ready, a)
		}
	}
	wait.WaitsForSlot = room
	slices.SortStableFunc(ready, func(a, b agented.Account) int {
		return cmp.Or(
			first(!cooling(&a), !cooling(&b)),
			first(a.Hint == "", b.Hint == ""),
			first(s.Session != nil && a.Home() == *s.Session, s.Session != nil && b.Home() == *s.Session),
			cmp.Compare(a.Order, b.Order), a.UsedAt.Compare(b.UsedAt), strings.Compare(string(a.ID), string(b.ID)),
		)
	})
	return ready, wait
}

// named reports whether want is the id or the name of a.
func named(a *agented.Account, want string) bool {
	return string(a.ID) == want || strings.EqualFold(a.Name, want)
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// because formats evidence for the end of a sentence.
func because(evidence string) string {
	if evidence == "" {
		return ""
	}
	return ` ("` + evidence + `")`
}

// sooner returns the wait that ends first. A wait that ends by itself precedes
// one that needs a person.
func sooner(a, b Selection) Selection {
	switch {
	case a.Reason == "":
		return b
	case b.Reason == "" || b.At.IsZero():
		return a
	case a.At.IsZero() || b.At.Before(a.At):
		return b
	}
	return a
}
