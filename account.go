package agented

import (
	"cmp"
	"maps"
	"path/filepath"
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
	Until         time.Time // of cooling: when it may be tried again; while an attempt probes it, when that is trusted
	Evidence      string    // what State was read from
	Cause         Class     // why it is not ready
	Strikes       int       // limits in a row, by which an unknown time grows
	Probing       bool      // an attempt is finding out whether it is ready again
	ProbedAt      time.Time // when one last began to
	Running       int       // attempts that use it now
	UsedAt        time.Time // when an attempt last began with it; zero: never
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// ConfigVariable names the environment variable by which a backend's CLI is told
// where it keeps login, settings and sessions.
func ConfigVariable(backend string) string {
	switch backend {
	case BackendClaude:
		return "CLAUDE_CONFIG_DIR"
	case BackendCodex:
		return "CODEX_HOME"
	case BackendGemini:
		return "GEMINI_CLI_HOME"
	case BackendOpenCode:
		return "OPENCODE_HOME"
	case BackendAnthropic:
		return "AGENTED_ANTHROPIC_DIR"
	}
	return ""
}

// Valid reports whether an id can be an account's.
func (id AccountID) Valid() bool {
	backend, isDefault := strings.CutPrefix(string(id), "default-")
	return ValidID("acc", string(id)) || isDefault && ConfigVariable(backend) != ""
}

// Validate returns every field of the account that cannot stand, each with the
// mend. Names of fields are those of the API; values of credentials may be
// sealed.
func (a *Account) Validate() []Field {
	var bad []Field
	refuse := func(path, text string) { bad = append(bad, Field{path, text}) }
	if ConfigVariable(a.Backend) == "" {
		refuse("backend", "must be one of "+strings.Join(Backends[1:], ", "))
	}
	if !validAccountName(a.Name) {
		refuse("name", "must be 1 to 100 letters, digits and . _ -, beginning with a letter or a digit")
	}
	if a.MaxConcurrent < 0 || a.MaxConcurrent > 10000 {
		refuse("max_concurrent", "must be from 0 (no limit) to 10000")
	}
	if a.Order < -1000000 || a.Order > 1000000 {
		refuse("order", "must be from -1000000 to 1000000")
	}
	if a.Config != "" && (!filepath.IsAbs(a.Config) || hasControl(a.Config)) {
		refuse("config", "must be an absolute path")
	}
	if a.Config == "" && len(a.Credentials) == 0 && !a.Default {
		refuse("credentials", "are missing: give a variable such as an API key, or the folder of a login as config")
	}
	for _, name := range slices.Sorted(maps.Keys(a.Credentials)) {
		path := "credentials." + clip(name)
		switch {
		case !validEnvName(name):
			refuse(path, "is not a variable name: use letters, digits and _, not starting with a digit")
		case strings.HasPrefix(name, "AGENTED_"), slices.Contains([]string{"PATH", "HOME", "PWD", "TMPDIR", "SHELL"}, name), strings.HasPrefix(name, "LD_"), strings.HasPrefix(name, "DYLD_"):
			refuse(path, "cannot be set by an account: it is the server's to give")
		case name == ConfigVariable(a.Backend):
			refuse(path, "is the CLI's folder: give it as config")
		case a.Credentials[name] == "":
			refuse(path, "is empty: give it a value, or leave it out")
		case strings.ContainsRune(a.Credentials[name], 0):
			refuse(path, "has a NUL byte, which no environment can hold")
		}
	}
	return bad
}

func validAccountName(name string) bool {
	if name == "" || len(name) > 100 {
		return false
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
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

// Rest says until when something rests and why. One whose time has passed is
// half open: a single attempt finds out whether it is over.
type Rest struct {
	Until   time.Time
	Why     string
	Probing bool // an attempt is finding out; Until is when it is trusted
}

// Resting reports whether it rests at now.
func (r Rest) Resting(now time.Time) bool { return now.Before(r.Until) }

// Scene is what Pick looks at, read in the transaction that acts on the answer.
type Scene struct {
	Accounts []Account       // of all backends in the chain
	Backends map[string]Rest // circuit breakers, overloads and throttles of the address, by backend
	Session  *Home           // where the session is that may be gone on with: an account that sees it goes first
	Now      time.Time
}

// Home is where a backend keeps its sessions: accounts with the same one can
// go on in each other's.
type Home struct {
	Backend string
	Config  string
}

// Home is where the account's sessions are.
func (a *Account) Home() Home { return Home{a.Backend, a.Config} }

// Picked is the answer of Pick: an account, or why there is none and when to
// look again.
type Picked struct {
	Choice  Choice
	Account Account
	Probe   bool // the account was resting: this attempt finds out for all others
	Trial   bool // likewise of the backend
	OK      bool
	Room    bool      // if not OK: an end of an attempt may make room
	Guess   bool      // At only bounds a wait of which the end is not known
	At      time.Time // if not OK: when to look again; zero: only a person can help
	Why     string    // if not OK: one sentence
}

// Pick chooses where an attempt runs: the first choice of the chain that has an
// account which is ready, and of these the one that has waited longest. While
// an account that rested is being probed, nobody else gets it. It is a pure
// function of its arguments.
func Pick(chain []Choice, s Scene) Picked {
	var best Picked
	room := false
	for _, c := range chain {
		rest, rests := s.Backends[c.Backend]
		if rest.Resting(s.Now) {
			best = sooner(best, Picked{At: rest.Until, Why: rest.Why})
			continue
		}
		ready, wait := candidates(c, s)
		if len(ready) > 0 {
			a := ready[0]
			return Picked{Choice: c, Account: a, Probe: a.resting(), Trial: rests && !rest.Probing, OK: true}
		}
		room = room || wait.Room
		best = sooner(best, wait)
	}
	best.Room = room
	if best.Why == "" {
		best.Why = "waits for an account: there is none for it; make one, or name another in the trigger"
	}
	return best
}

// resting reports whether the account rests and nobody has found out that it
// need not.
func (a *Account) resting() bool { return a.State == AccountCooling && !a.Probing }

// candidates returns the accounts that can be used now, the best first, and
// otherwise what to wait for.
func candidates(c Choice, s Scene) (ready []Account, wait Picked) {
	room := false
	for _, a := range s.Accounts {
		switch {
		case a.Backend != c.Backend || c.Account != "" && !a.named(string(c.Account)):
		case !a.Enabled:
			wait = sooner(wait, Picked{Why: "waits for account " + a.Label() + ", which is disabled: enable it"})
		case a.State == AccountNeedsLogin:
			wait = sooner(wait, Picked{Why: "waits for account " + a.Label() + ", which needs a login" + because(a.Evidence)})
		case a.State == AccountOutOfCredit:
			wait = sooner(wait, Picked{Why: "waits for account " + a.Label() + ", which is out of credit" + because(a.Evidence)})
		case a.State == AccountCooling && s.Now.Before(a.Until) && a.Probing:
			wait = sooner(wait, Picked{At: a.Until, Why: "waits for the attempt that finds out whether account " + a.Label() + " may go on"})
		case a.State == AccountCooling && s.Now.Before(a.Until):
			wait = sooner(wait, Picked{At: a.Until, Why: "waits for account " + a.Label() + " until " + Clock(a.Until) + because(a.Evidence)})
		case a.MaxConcurrent > 0 && a.Running >= a.MaxConcurrent:
			room = true
			wait = sooner(wait, Picked{At: s.Now.Add(MaxAccountWait), Guess: true, Why: "waits for account " + a.Label() + ", which runs as many as it may"})
		default:
			ready = append(ready, a)
		}
	}
	wait.Room = room
	slices.SortStableFunc(ready, func(a, b Account) int {
		return cmp.Or(
			first(!a.resting(), !b.resting()),
			first(s.Session != nil && a.Home() == *s.Session, s.Session != nil && b.Home() == *s.Session),
			cmp.Compare(a.Order, b.Order), a.UsedAt.Compare(b.UsedAt), strings.Compare(string(a.ID), string(b.ID)),
		)
	})
	return ready, wait
}

// first orders what is true before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// because adds evidence to a sentence.
func because(evidence string) string {
	if evidence == "" {
		return ""
	}
	return ` ("` + evidence + `")`
}

// Clock writes a time for a sentence, to the minute that has begun by then.
func Clock(t time.Time) string {
	if up := t.Truncate(time.Minute); !up.Equal(t) {
		t = up.Add(time.Minute)
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// MaxAccountWait bounds how long an execution sleeps while it waits for
// something that ends without a known time. Whatever makes room wakes it before.
const MaxAccountWait = 15 * time.Minute

// ProbeTrust is how long a probe may run before it counts as good: the first
// attempt after a limit is a piece of work that can take hours, and what is
// refused is refused in seconds.
const ProbeTrust = 2 * time.Minute

// Use is what an attempt's end says about its account.
type Use struct {
	Class    Class
	Until    time.Time // when to try again, as RetryPolicy.Next says
	Evidence string
	Told     bool // Until comes from a time that the CLI printed
	Worked   bool // the model answered: it succeeded, or failed for reasons of its own
	Probe    bool // it was to find out whether the account is ready again
}

// After is how the account stands after an attempt on it has ended. It is a
// pure function of its arguments.
func (a Account) After(u Use, now time.Time) Account {
	switch {
	case u.Class == ClassAuth, u.Class == ClassBilling:
		a.State = AccountNeedsLogin
		if u.Class == ClassBilling {
			a.State = AccountOutOfCredit
		}
		a.Until, a.Evidence, a.Cause = time.Time{}, u.Evidence, u.Class
	case u.Class == ClassAccountLimit, u.Class == ClassThrottle:
		switch {
		case u.Probe || a.State == AccountReady || a.State == AccountCooling && !a.Probing && !now.Before(a.Until):
			a.State, a.Until, a.Evidence, a.Cause = AccountCooling, u.Until, u.Evidence, u.Class
			a.Strikes++
		case a.State == AccountCooling && !a.Probing && u.Told && u.Until.After(a.Until):
			// One of those that ran beside the one that met the limit first.
			a.Until, a.Evidence, a.Cause = u.Until, u.Evidence, u.Class
		}
	case u.Worked && u.Probe, u.Worked && a.State == AccountReady:
		a.State, a.Until, a.Evidence, a.Cause, a.Strikes = AccountReady, time.Time{}, "", "", 0
	case u.Worked && a.State == AccountCooling && !a.Probing && now.Before(a.Until) && !now.Before(a.ProbedAt.Add(MaxEarlyProbe)):
		a.Until = now // it may be ready before the printed time: one attempt finds out
	case u.Probe && a.State == AccountCooling:
		a.Until = now // it found out nothing: the next one does
		if u.Class == ClassNetwork || u.Class == ClassOverload {
			a.Until = now.Add(DefaultRetryBase * time.Second)
		}
	}
	if u.Probe {
		a.Probing = false
	}
	return a
}

// named reports whether a choice's account means a.
func (a *Account) named(want string) bool {
	return string(a.ID) == want || strings.EqualFold(a.Name, want)
}

// Label is how a sentence names the account.
func (a *Account) Label() string { return a.Backend + "/" + a.Name }

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
