package agented

import (
	"slices"
	"strings"
	"time"
)

// Account is one set of credentials of a backend. The server's environment
// forms one per backend, the default account; all others are made through the
// API.
type Account struct {
	ID            AccountID
	Backend       string
	Name          string // unique for the backend, ignoring case
	Default       bool   // formed by the server's environment: it has no credentials of its own here
	Enabled       bool
	Order         int               // lower is taken first when all else is equal
	MaxConcurrent int               // attempts at once; 0 is no limit
	Config        string            // folder with the CLI's own login, such as CLAUDE_CONFIG_DIR; empty: none
	Credentials   map[string]string // environment variable to sealed value; write-only
	State         AccountState
	Until         time.Time // of cooling: when it may be tried again
	Evidence      string    // what State was read from
	Probing       bool      // an attempt is finding out whether it is ready again
	Running       int       // attempts that use it now
	UsedAt        time.Time // when an attempt last began with it; zero: never
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// AccountState is how an account stands. The values are stored and part of the
// API.
type AccountState string

// The states of an account.
const (
	AccountReady       AccountState = "ready"
	AccountCooling     AccountState = "cooling"       // rests until a time
	AccountNeedsLogin  AccountState = "needs_login"   // its credentials were refused: a person has to act
	AccountOutOfCredit AccountState = "out_of_credit" // likewise, with money
)

// AccountStates lists the states of an account.
var AccountStates = []AccountState{AccountReady, AccountCooling, AccountNeedsLogin, AccountOutOfCredit}

// DefaultAccount is the id of the account that the server's environment forms
// for a backend.
func DefaultAccount(backend string) AccountID { return AccountID("default-" + backend) }

// Choice is one link of a trigger's chain: what to try, in order.
type Choice struct {
	Backend string    `json:"backend"`
	Account AccountID `json:"account,omitempty"` // id or name; empty is any of the backend
	Model   string    `json:"model,omitempty"`
}

// Chain is what the spec may run on, the first choice first.
func (s *Spec) Chain() []Choice {
	first := Choice{Backend: s.Backend, Account: s.Account, Model: s.Model}
	return append([]Choice{first}, s.Fallback...)
}

// Rest says until when something rests and why.
type Rest struct {
	Until time.Time
	Why   string
}

// Resting reports whether it rests at now.
func (r Rest) Resting(now time.Time) bool { return now.Before(r.Until) }

// Scene is what Pick looks at, read in the transaction that acts on the answer.
type Scene struct {
	Accounts []Account       // of all backends in the chain
	Backends map[string]Rest // circuit breakers and overloads, by backend
	Now      time.Time
}

// Picked is the answer of Pick: an account, or why there is none and when to
// look again.
type Picked struct {
	Choice  Choice
	Account Account
	Probe   bool // the account was resting: this attempt finds out for all others
	OK      bool
	At      time.Time // if not OK: when to look again; zero: only a person can help
	Why     string    // if not OK: one sentence
}

// Pick chooses where an attempt runs: the first choice of the chain that has an
// account which is ready, and of these the one that has waited longest. While
// an account that rested is being probed, nobody else gets it. It is a pure
// function of its arguments.
func Pick(chain []Choice, s Scene) Picked {
	var best Picked
	for _, c := range chain {
		if rest := s.Backends[c.Backend]; rest.Resting(s.Now) {
			best = sooner(best, Picked{At: rest.Until, Why: rest.Why})
			continue
		}
		ready, wait := candidates(c, s)
		if len(ready) > 0 {
			a := ready[0]
			return Picked{Choice: c, Account: a, Probe: a.State == AccountCooling, OK: true}
		}
		best = sooner(best, wait)
	}
	if best.Why == "" {
		best.Why = "no account of its backends is there: make one, or set the backend's key in the server's environment"
	}
	return best
}

// candidates returns the accounts that can be used now, the best first, and
// otherwise what to wait for.
func candidates(c Choice, s Scene) (ready []Account, wait Picked) {
	for _, a := range s.Accounts {
		switch {
		case a.Backend != c.Backend || c.Account != "" && !a.named(string(c.Account)):
		case !a.Enabled:
			wait = sooner(wait, Picked{Why: "account " + a.label() + " is disabled: enable it"})
		case a.MaxConcurrent > 0 && a.Running >= a.MaxConcurrent:
			wait = sooner(wait, Picked{At: s.Now.Add(MaxAccountWait), Why: "waits for account " + a.label() + ", which runs as many as it may"})
		case a.State == AccountReady:
			ready = append(ready, a)
		case a.State == AccountCooling && a.Probing:
			wait = sooner(wait, Picked{At: s.Now.Add(MaxAccountWait), Why: "waits for the attempt that finds out whether account " + a.label() + " may go on"})
		case a.State == AccountCooling && !s.Now.Before(a.Until):
			ready = append(ready, a)
		case a.State == AccountCooling:
			wait = sooner(wait, Picked{At: a.Until, Why: "waits for account " + a.label() + " until " + a.Until.UTC().Format("2006-01-02 15:04 UTC") + ": " + a.Evidence})
		case a.State == AccountNeedsLogin:
			wait = sooner(wait, Picked{Why: "account " + a.label() + " needs a login: " + a.Evidence})
		default:
			wait = sooner(wait, Picked{Why: "account " + a.label() + " is out of credit: " + a.Evidence})
		}
	}
	slices.SortStableFunc(ready, func(a, b Account) int {
		if (a.State == AccountReady) != (b.State == AccountReady) {
			if a.State == AccountReady {
				return -1
			}
			return 1
		}
		if n := a.Order - b.Order; n != 0 {
			return n
		}
		if n := a.UsedAt.Compare(b.UsedAt); n != 0 {
			return n
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return ready, wait
}

// MaxAccountWait bounds how long an execution sleeps while it waits for
// something that ends without a known time. Whatever makes room wakes it before.
const MaxAccountWait = 15 * time.Minute

// named reports whether a choice's account means a.
func (a *Account) named(want string) bool {
	return string(a.ID) == want || strings.EqualFold(a.Name, want)
}

// label is how a sentence names the account.
func (a *Account) label() string { return a.Backend + "/" + a.Name }

// sooner returns the wait that ends first; one that ends by itself goes before
// one that needs a person.
func sooner(a, b Picked) Picked {
	switch {
	case a.Why == "":
		return b
	case b.Why == "" || b.At.IsZero():
		return a
	case a.At.IsZero() || b.At.Before(a.At):
		return b
	}
	return a
}
