// Package agentcli describes agent CLIs: the command line and environment of each, and how its
// output becomes events. Each CLI has a folder of its own; the package registry lists them. It runs
// only `X --version` and does not read the environment itself.
package agentcli

import (
	"crypto/sha256"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/agented/agented"
)

// CLI is one agent CLI, or command for any other program.
type CLI interface {
	// Name returns the value of a trigger's backend field.
	Name() string
	// Program returns the name of the CLI's program. It is empty for command, whose trigger names
	// the program, and for a built-in backend.
	Program() string
	// Install returns an instruction for installing the CLI, in one sentence; it is empty for
	// command.
	Install() string
	// Plan returns the command line. Its errors are messages for users.
	Plan(Request) (Plan, error)
	// Object returns the events of one JSON object on standard output. typed is false for an object
	// without the field that names its type. It accepts any object and has no state.
	Object(object []byte) (events []Event, typed bool)
	// Text returns the events of a line that has no object of the CLI.
	Text(stream agented.Stream, line []byte) []Event
	// Rules returns what is constant about the CLI. The caller does not change it.
	Rules() *Rules
}

// Request holds the inputs of a command line.
type Request struct {
	Spec      agented.Spec
	Prompt    string // rendered; the backend command receives it on standard input
	Execution agented.ExecutionID
	Attempt   int               // counted from 1
	Resume    string            // session to resume, as in Result.SessionID; empty for a new one
	Root      bool              // the CLI will run as uid 0
	Foreign   bool              // the working directory is an untrusted repository, whose settings must be ignored
	Pieces    bool              // print partial answers where the CLI supports it
	BudgetUSD float64           // maximum cost of the attempt, for a CLI that can enforce it; 0 means none
	Self      string            // absolute path of this program, for a built-in backend
	State     string            // folder in which a built-in backend stores sessions
	Env       map[string]string // the child's environment from ChildEnv

	ResultSchema []byte // JSON Schema of the result, for a CLI whose Rules accept it; nil: none
	SchemaFile   string // absolute path of a file with it
}

// Plan describes how a CLI is called. It is computed without side effects: the same request gives
// the same plan.
type Plan struct {
	Args    []string          // Args[0] is the program, to be found on the child's PATH
	Env     map[string]string // additional environment variables of the child, which take precedence
	Stdin   []byte            // the prompt; nil means /dev/null
	Capture agented.Capture
}

// Rules is what is constant about a CLI.
type Rules struct {
	// Label is the name of the product, for forms; empty: the name of the CLI.
	Label string
	// Subject names the CLI in sentences.
	Subject string
	// Protocol is false if the output is plain text and its end is the result.
	Protocol bool
	// Variables lists the environment variables of the CLI: its credentials and the folders of its
	// files. Only CLIs that list a variable receive it.
	Variables []string
	// HomeVariable names the variable with the folder of the CLI's login, settings and sessions, and
	// KeyVariable the one with an API key. Both are among Variables; empty: it has no accounts.
	HomeVariable, KeyVariable string
	// Settings are the variables of the server's settings that belong to the CLI. One that several
	// CLIs read is listed by the first of them.
	Settings []Setting
	// Permissions are the permissions that the CLI distinguishes; empty: it has no tools.
	Permissions []agented.Permission
	// Models are names of models, as suggestions in forms.
	Models []string
	// ProjectFiles are the names of files and folders, at any depth of a repository, from which the
	// CLI reads instructions, settings, hooks, servers and skills. Case does not matter.
	ProjectFiles []string
	// NeverRestored are those of ProjectFiles that an untrusted checkout does not get from the default
	// branch either, because the CLI has no option to ignore them.
	NeverRestored []string
	// VersionEnv are variables for `X --version`: without them, some CLIs restart or update
	// themselves.
	VersionEnv []string
	// PathEnv names a variable with a folder whose programs come first on the PATH; empty: none.
	PathEnv string
	// StartupFiles are patterns, in lower case, of files and folders in the working directory that
	// the CLI, or the runtime that it is compiled with, loads before any of its switches takes effect.
	StartupFiles []string
	// Tested is the oldest tested version; empty if there is none.
	Tested string
	// ProbeModel is a cheap model that every account can use; empty if there is none.
	ProbeModel string
	// LoginFiles are the files with a login, below the account's folder if it has one, otherwise
	// below the home directory.
	LoginFiles []LoginFile

	// ResultSchema is the kind of JSON Schema that the CLI accepts for its result.
	ResultSchema SchemaKind

	// APIErrors matches lines outside of the protocol that report an error of the model's API. Only
	// such a line can cool down an account or cause a retry; all other lines concern the machine, the
	// configuration or the command line.
	APIErrors *regexp.Regexp
	// Noise lists the beginnings of meaningless lines outside of the protocol.
	Noise []string
	// Withholdable lists the tools that a permission mode can withhold: a call of one that does not
	// exist was denied, a call of an invented tool was not.
	Withholdable []string
	// Exit returns the failure that an exit code other than 0 describes. bad is the error that the
	// CLI reported, and complaint its last error outside of the protocol. local is true if the code
	// concerns the machine or the configuration. It may be nil.
	Exit func(code int, bad *Failure, complaint string) (failure *Failure, local bool)
	// Stall describes how the CLI waits; nil if it cannot be known.
	Stall *StallRules
}

// SchemaKind is the kind of JSON Schema that a CLI accepts for its result.
type SchemaKind int

// The kinds.
const (
	NoSchema     SchemaKind = iota // none: the prompt asks for the result
	AnySchema                      // any
	StrictSchema                   // schemas for the strict mode of OpenAI's structured outputs
)

// Setting is a variable of the server's settings that is passed to the CLIs that read it.
type Setting struct {
	Name string
	Old  string // an older name
	Kind string // "secret", "url" or "path"
	Help string // the meaning, in sentences
}

// AllPermissions are the permissions of a CLI that distinguishes each of them.
var AllPermissions = []agented.Permission{agented.PermissionRead, agented.PermissionEdit, agented.PermissionFull}

// LoginFile is a file with a CLI's login.
type LoginFile struct {
	Home  string   // path below the home directory, with slashes
	Own   string   // path below the account's own folder
	Words []string // the file has a login only if it has one of them; empty: in any case
}

// StallRules describe how a CLI waits.
type StallRules struct {
	Quiet time.Duration // patience while it waits for the model; 0 means no limit
	Tool  time.Duration // patience while a tool runs; 0 means no limit
	// LateTools is true if a tool is printed only when it has ended: one may run whenever no step has
	// ended.
	LateTools bool
	// ResultMark is part of every result, to recognise one that is too long to be decoded.
	ResultMark string
}

// SessionID derives the id of an attempt's CLI session from the attempt, as a version 8 UUID, so
// that it is known before the CLI reports it and is the same in every plan.
func SessionID(id agented.ExecutionID, attempt int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "agented session\n%s\n%d", id, attempt))
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// WithSystem puts the system prompt in front of the prompt, for a CLI without an option for it. A
// resumed session already contains it.
func WithSystem(r Request) string {
	if r.Spec.SystemPrompt == "" || r.Resume != "" {
		return r.Prompt
	}
	return r.Spec.SystemPrompt + "\n\n---\n\n" + r.Prompt
}

// CheckResume rejects a session id that a CLI could parse as an option. Ids come from a CLI's
// output, which an agent can influence.
func CheckResume(r Request) error {
	if r.Resume == "" {
		return nil
	}
	for i, c := range []byte(r.Resume) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_') || i >= 200 {
			return agented.Errorf(agented.Invalid, "the id of the session to resume is not a valid session id of %s: start a new session", r.Spec.Backend)
		}
	}
	return nil
}

// SetUnless adds NAME=value unless the child's environment already contains the name, so that a
// trigger's value takes precedence.
func SetUnless(env map[string]string, r Request, pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		if _, there := r.Env[pairs[i]]; !there {
			env[pairs[i]] = pairs[i+1]
		}
	}
}

// StartupFile reports whether the CLI loads a file or folder of that name from its working directory
// whatever its arguments are. Case does not matter, since it does not on every file system.
func StartupFile(cli CLI, name string) bool {
	for _, pattern := range cli.Rules().StartupFiles {
		if ok, _ := path.Match(pattern, strings.ToLower(name)); ok { // the patterns are constants, and well-formed
			return true
		}
	}
	return false
}
