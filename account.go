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
// defines one per backend, the default account; all others are created through
// the API.
type Account struct {
	ID                AccountID
	Backend           string
	Name              string // unique within the backend, ignoring case
	Default           bool   // defined by the server's environment; stores no credentials
	Enabled           bool
	Order             int               // accounts with a lower order are preferred
	MaxConcurrent     int               // concurrent attempts; 0 means no limit
	Config            string            // directory of the CLI's own login, such as CLAUDE_CONFIG_DIR; empty: none
	Credentials       map[string]string // environment variable to sealed value; write-only
	State             AccountState
	Until             time.Time // when cooling: end of the cooldown; while a probe runs: when the probe counts as successful
	Evidence          string    // output from which State was derived
	Cause             Class     // why it is not ready
	Hint              string    // problem that may keep the account from working, found by the server; not stored
	Fix               string    // command that removes Hint; not stored
	NotInstalled      bool      // Hint is that the program of the CLI is missing; not stored
	Used              AccountUse
	ConsecutiveLimits int       // consecutive limits; the cooldown grows with them when the reset time is unknown
	Probing           bool      // a probe attempt is testing whether the account is ready again
	ProbedAt          time.Time // start of the latest probe
	Running           int       // running attempts that use it
	UsedAt            time.Time // start of the latest attempt that used it; zero: never
	CreatedAt         time.Time
	UpdatedAt         time.Time
}

// Valid reports whether id can be the id of an account.
func (id AccountID) Valid() bool {
	backend, isDefault := strings.CutPrefix(string(id), "default-")
	return ValidID("acc", string(id)) || isDefault && ConfigVariable(backend) != ""
}

// Validate returns every invalid field of the account with its fix. Fields are
// named as in the API; credential values may be sealed.
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
		refuse("credentials", "are missing: add a variable such as an API key, or set config to the directory of a login")
	}
	for _, name := range slices.Sorted(maps.Keys(a.Credentials)) {
		path := "credentials." + clip(name)
		switch {
		case !validEnvName(name):
			refuse(path, "is not a variable name: use letters, digits and _, not starting with a digit")
		case strings.HasPrefix(name, "AGENTED_"), slices.Contains([]string{"PATH", "HOME", "PWD", "TMPDIR", "SHELL"}, name), strings.HasPrefix(name, "LD_"), strings.HasPrefix(name, "DYLD_"):
			refuse(path, "cannot be set by an account: the server sets it")
		case name == ConfigVariable(a.Backend):
			refuse(path, "is the directory of the CLI's login: set it as config")
		case a.Credentials[name] == "":
			refuse(path, "is empty: set a value, or remove it")
		case strings.ContainsRune(a.Credentials[name], 0):
			refuse(path, "has a NUL byte: remove it")
		case badSecretRef(a.Credentials[name]):
			refuse(path, "is not the name of a secret; agented secret list shows them")
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

// AccountState is the availability of an account. The values are stored and
// part of the API.
type AccountState string

// The states of an account.
const (
	AccountReady       AccountState = "ready"
	AccountCooling     AccountState = "cooling"       // not used until a time
	AccountNeedsLogin  AccountState = "needs_login"   // its credentials were rejected; a person must log in
	AccountOutOfCredit AccountState = "out_of_credit" // a person must add credit
)

// DefaultAccount returns the id of the account that the server's environment
// defines for a backend.
func DefaultAccount(backend string) AccountID { return AccountID("default-" + backend) }

// Choice is one entry of a trigger's fallback chain.
type Choice struct {
	Backend string    `json:"backend"`
	Account AccountID `json:"account,omitempty"` // id or name; empty: any account of the backend
	Model   string    `json:"model,omitempty"`
}

// Chain returns the spec's choices in order of preference.
func (s *Spec) Chain() []Choice {
	first := Choice{Backend: s.Backend, Account: s.Account, Model: s.Model}
	return append([]Choice{first}, s.Fallback...)
}

// Home is where a backend stores its sessions. Accounts with the same Home can
// resume each other's sessions.
type Home struct {
	Backend string
	Config  string
}

// Home returns where the account's sessions are stored.
func (a *Account) Home() Home { return Home{a.Backend, a.Config} }

// Clock formats a time for a sentence, rounded up to the minute.
func Clock(t time.Time) string {
	if up := t.Truncate(time.Minute); !up.Equal(t) {
		t = up.Add(time.Minute)
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// Label returns the account's name for use in a sentence: BACKEND/NAME.
func (a *Account) Label() string { return a.Backend + "/" + a.Name }

// CredentialVariable is the variable with an API key that the account's CLI reads.
func (a *Account) CredentialVariable() string {
	return cmp.Or(wordsOf(a.Backend).key, "ANTHROPIC_API_KEY")
}

// SetupFix says with which commands an account gets its first credentials.
func (a *Account) SetupFix() string {
	key := "agented account update " + a.Label() + " --credential " + a.CredentialVariable()
	if a.Default {
		key = "set " + a.CredentialVariable() + " in the server's .env and restart the server (agented restart, or systemctl restart agented)"
	} else {
		key = "run " + key
	}
	if login := a.login(); login != "" {
		return "log in as the server's user (" + login + "), or " + key
	}
	return key
}

// LoginFix returns the commands that repair the account's login.
func (a *Account) LoginFix() string {
	run := a.login()
	if run == "" || len(a.Credentials) > 0 {
		run = "set valid credentials (agented account update " + a.Label() + ")"
	} else {
		run = "log in as the server's user (" + run + ") or give it an API key"
	}
	return run + ", then run agented account reset " + a.Label()
}

// login is the command with which a person logs in; empty if the backend has no CLI.
func (a *Account) login() string {
	run := wordsOf(a.Backend).login
	if a.Config != "" && run != "" {
		run = ConfigVariable(a.Backend) + "=" + a.Config + " " + run
	}
	return run
}

// OwnCredentials returns the first variable of the spec's own env that is a
// credential of its backend or the address of a provider, or "" if there is
// none. An attempt with such a variable uses no account: it does not wait for
// an account, and its end does not change the state of one.
func (s *Spec) OwnCredentials() string {
	words := wordsOf(s.Backend)
	if words.anyProvider {
		for name := range s.Env {
			if strings.HasSuffix(name, "_API_KEY") || strings.HasSuffix(name, "_AUTH_TOKEN") || strings.HasSuffix(name, "_BASE_URL") {
				return name
			}
		}
	}
	for _, name := range words.credentials {
		if _, there := s.Env[name]; there {
			return name
		}
	}
	return ""
}

// AccountUse is the result of the latest attempt that shows whether an account works.
type AccountUse struct {
	At        time.Time // end of the attempt; zero: none since the credentials changed
	Works     bool      // the attempt used the model
	Reason    string    // why it was refused
	Execution ExecutionID
}

// AccountProblem is what keeps an account from working, judging by the server's files and
// environment. The zero value is none.
type AccountProblem struct {
	Hint, Fix    string
	NotInstalled bool // the program of the CLI is missing
	Gone         bool // it cannot work, because its directory is missing
}

// AccountCheck is what is known about whether an account works. The values are part of the API.
type AccountCheck string

// The results of a check, from the first that is missing.
const (
	CheckNotInstalled  AccountCheck = "not_installed"  // the program of the CLI is missing
	CheckNoCredentials AccountCheck = "no_credentials" // neither credentials nor a login were found
	CheckNotTried      AccountCheck = "not_tried"      // no attempt has shown whether it works
	CheckWorks         AccountCheck = "works"          // the latest attempt that shows it used the model
	CheckRefused       AccountCheck = "refused"        // the latest attempt that shows it failed without the model
)

// Check returns whether the account works. A CLI may have a login that the server cannot see,
// so a response of the model counts more than missing credentials.
func (a *Account) Check() AccountCheck {
	switch {
	case a.NotInstalled:
		return CheckNotInstalled
	case a.State == AccountNeedsLogin, a.State == AccountOutOfCredit:
		if a.Used.At.IsZero() && a.Hint != "" {
			return CheckNoCredentials
		}
		return CheckRefused
	case !a.Used.At.IsZero() && a.Used.Works:
		return CheckWorks
	case a.Hint != "":
		return CheckNoCredentials
	case !a.Used.At.IsZero():
		return CheckRefused
	}
	return CheckNotTried
}
