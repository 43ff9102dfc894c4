package agented

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Overlap is what a firing does while an earlier execution of the same trigger
// has not ended.
type Overlap string

// The overlap rules.
const (
	OverlapQueue   Overlap = "queue"   // wait in the queue
	OverlapSkip    Overlap = "skip"    // do not run
	OverlapReplace Overlap = "replace" // cancel the earlier ones and run
)

// Permission is what an agent may do without asking. Each backend maps it to
// its own modes; see docs/reference/agent-clis.md.
type Permission string

// The permissions.
const (
	PermissionRead Permission = "read" // read only
	PermissionEdit Permission = "edit" // change files in the working directory
	PermissionFull Permission = "full" // run anything
)

// Spec is what a trigger runs: the part of it that is copied to each execution.
// The JSON names are those of the API.
type Spec struct {
	Backend        string             `json:"backend"`
	Command        []string           `json:"command,omitempty"` // backend command: program and arguments
	TTY            bool               `json:"tty,omitempty"`     // backend command: run on a pseudo-terminal
	Prompt         string             `json:"prompt,omitempty"`  // template, see [Render]; backend command receives it on standard input
	Model          string             `json:"model,omitempty"`
	Permission     Permission         `json:"permission,omitempty"`
	Args           []string           `json:"args,omitempty"`        // raw extra arguments; only an admin may set them
	WorkingDir     string             `json:"working_dir,omitempty"` // absolute; empty: the execution's own directory
	Paths          []string           `json:"paths,omitempty"`       // additional directories that the agent may use; {paths} in a prompt
	TimeoutSeconds int                `json:"timeout_seconds"`
	SilenceSeconds int                `json:"silence_timeout_seconds"`
	Env            map[string]*string `json:"env,omitempty"`       // null passes the server's variable of that name
	PlainEnv       []string           `json:"plain_env,omitempty"` // names in Env whose values are not secret, sorted
	MaxConcurrent  int                `json:"max_concurrent"`
	Overlap        Overlap            `json:"overlap"`
	Account        AccountID          `json:"account,omitempty"`            // id or name; empty: any account of the backend
	NeedsLogin     bool               `json:"fail_without_login,omitempty"` // ad hoc only: fail immediately if it would wait for a login
	Fallback       []Choice           `json:"fallback,omitempty"`           // tried in order when no earlier choice is ready
	Retry          RetryPolicy        `json:"retry,omitzero"`               // what happens after an attempt that did not succeed
	Workspace      *Workspace         `json:"workspace,omitempty"`          // a git repository to work in
	TrustRepo      bool               `json:"trust_repository,omitempty"`   // use agent files of the checkout as they are, instead of those of the default branch
	Sandbox        Sandbox            `json:"sandbox,omitempty"`            // empty: the server's default
	Network        *Network           `json:"network,omitempty"`            // nil: only the API of the model and the host of the workspace
	Limits         Limits             `json:"limits,omitzero"`
	CeilingUSD     float64            `json:"ceiling_usd,omitempty"`   // cost at which a running execution is paused with a question; 0 means none
	Agent          string             `json:"agent,omitempty"`         // id or name of an agent that provides prompt and backend settings
	Publish        *Publish           `json:"publish,omitempty"`       // what the server may write to the forge; nil: nothing
	PublishTo      *PublishTarget     `json:"publish_to,omitempty"`    // set by the server only
	SystemPrompt   string             `json:"system_prompt,omitempty"` // role and goals, for backends that take them separately from the prompt
	Notify         NotifyRules        `json:"notify,omitempty"`        // which channels are notified; kinds not listed follow the channels' rules
	Expect         *Expect            `json:"expect,omitempty"`        // outcome contract; nil: none
	ExpectEvery    string             `json:"expect_every,omitempty"`  // period within which an execution must succeed, such as 26h; empty: none
	Resume         *ResumePoint       `json:"resume,omitempty"`        // set by the server only
}

// Defaults and limits of a Spec.
const (
	DefaultTimeoutSeconds = 3600
	MaxTimeoutSeconds     = 30 * 24 * 3600
	DefaultMaxConcurrent  = 1
	MaxPrompt             = 1 << 20 // bytes of a prompt template, and of a rendered prompt
	MaxName               = 200     // bytes of a trigger's name
)

// Environment variables that are set in every child process.
const (
	EnvExecution = "AGENTED_EXECUTION_ID"
	EnvTrigger   = "AGENTED_TRIGGER_ID"
	EnvAttempt   = "AGENTED_ATTEMPT"
	EnvOut       = "AGENTED_OUT" // folder that the attempt may fill; files in its folder artifacts are kept
)

// hasControl reports whether s contains a control character. Names, readable
// arguments and names of environment variables must not contain any.
func hasControl(s string) bool { return strings.IndexFunc(s, unicode.IsControl) >= 0 }

// folderError returns why path cannot be the path of a directory, or "".
func folderError(path string) string {
	switch {
	case strings.ContainsAny(path, "\r\n"):
		return "has a line break: write the path on one line"
	case hasControl(path):
		return "has a control character: remove it"
	case strings.HasPrefix(path, "~"):
		return "must be an absolute path, and ~ is not expanded: write the full path, for example /home/NAME/project"
	case !filepath.IsAbs(path):
		return "must be an absolute path: begin it with /"
	}
	return ""
}

// Validate returns every invalid field of the spec with its fix.
func (s *Spec) Validate() []Field {
	var bad []Field
	refuse := func(path, format string, args ...any) {
		bad = append(bad, Field{path, fmt.Sprintf(format, args...)})
	}
	agent := false
	switch {
	case s.Agent != "":
		s.validateByAgent(refuse)
	case s.Backend == "":
		refuse("backend", "is required: use one of %s", strings.Join(Backends, ", "))
	case !slices.Contains(Backends, s.Backend):
		refuse("backend", "is unknown: use one of %s%s", strings.Join(Backends, ", "), suggest(s.Backend, Backends))
	default:
		agent = s.Backend != BackendCommand
	}
	if s.Agent == "" && s.Backend == BackendCommand {
		s.validateCommand(refuse)
	}
	if agent {
		s.validateAgent(refuse)
	}
	for i, p := range s.Paths {
		if text := folderError(p); text != "" {
			refuse(fmt.Sprintf("paths.%d", i), "%s", text)
		}
	}
	if text := folderError(s.WorkingDir); s.WorkingDir != "" && text != "" {
		refuse("working_dir", "%s", text)
	}
	if s.TimeoutSeconds < 0 || s.TimeoutSeconds > MaxTimeoutSeconds {
		refuse("timeout_seconds", "must be from 0 (no limit) to %d", MaxTimeoutSeconds)
	}
	if s.SilenceSeconds < 0 || s.SilenceSeconds > MaxTimeoutSeconds {
		refuse("silence_timeout_seconds", "must be from 0 (no limit) to %d", MaxTimeoutSeconds)
	}
	if s.MaxConcurrent < 0 || s.MaxConcurrent > 10000 {
		refuse("max_concurrent", "must be from 0 (only the node's limit) to 10000")
	}
	if !slices.Contains([]Overlap{OverlapQueue, OverlapSkip, OverlapReplace}, s.Overlap) {
		refuse("overlap", "must be queue, skip or replace")
	}
	if text := s.Sandbox.Problem(); text != "" {
		refuse("sandbox", "%s", text)
	}
	s.Network.validate(s.Sandbox, refuse)
	s.Limits.validate(refuse)
	s.Notify.validate(refuse)
	s.Expect.validate(s, refuse)
	s.validateExpectEvery(refuse)
	s.validateWorkspace(refuse)
	s.validateAccounts(refuse)
	s.validatePublish(refuse)
	bad = append(bad, s.Retry.Validate()...)
	for name, value := range s.Env {
		path := "env." + clip(name)
		switch {
		case !validEnvName(name):
			refuse(path, "is not a variable name: use letters, digits and _, not starting with a digit")
		case strings.HasPrefix(name, "AGENTED_"):
			refuse(path, "is reserved: names that start with AGENTED_ are set by the server")
		case value != nil && strings.ContainsRune(*value, 0):
			refuse(path, "has a NUL byte: remove it")
		case value != nil && badSecretRef(*value):
			refuse(path, "is not the name of a secret; agented secret list shows them")
		case s.Workspace != nil && string(s.Workspace.Credential) == name && slices.Contains(s.PlainEnv, name):
			refuse(path, "is the workspace's credential, which is always a secret: remove secret: false")
		}
	}
	slices.SortStableFunc(bad, func(a, b Field) int {
		if strings.HasPrefix(a.Path, "env.") && strings.HasPrefix(b.Path, "env.") {
			return strings.Compare(a.Path, b.Path)
		}
		return 0
	})
	return bad
}

// validateByAgent validates a spec whose prompt and backend come from an agent.
func (s *Spec) validateByAgent(refuse func(path, format string, args ...any)) {
	if len(s.Agent) > MaxAgentName || hasControl(s.Agent) {
		refuse("agent", "is not the name of an agent")
	}
	for _, f := range []struct {
		path string
		set  bool
	}{
		{"backend", s.Backend != ""},
		{"command", len(s.Command) > 0},
		{"tty", s.TTY},
		{"model", s.Model != ""},
		{"permission", s.Permission != ""},
		{"args", len(s.Args) > 0},
		{"account", s.Account != ""},
		{"fallback", len(s.Fallback) > 0},
		{"working_dir", s.WorkingDir != ""},
		{"workspace", s.Workspace != nil},
		{"trust_repository", s.TrustRepo},
		{"network", s.Network != nil},
		{"paths", len(s.Paths) > 0},
		{"env", len(s.Env) > 0},
	} {
		if f.set {
			refuse(f.path, "comes from the agent: remove it, or remove agent")
		}
	}
	if templateSize(s.Prompt) > MaxPrompt {
		refuse("prompt", "is too long: use at most %d bytes", MaxPrompt)
	}
	for _, f := range CheckTemplate(s.Prompt) {
		refuse("prompt", "%s", f)
	}
}

// maxFallback is the most entries of a fallback chain.
const maxFallback = 10

// validateAccounts validates the account and the fallback chain. It does not
// check whether an account exists; that is checked when an attempt needs it.
func (s *Spec) validateAccounts(refuse func(path, format string, args ...any)) {
	check := func(path string, c Choice) {
		if c.Account != "" && !validAccountName(string(c.Account)) {
			refuse(path+"account", "is not an account's id or name")
		}
		if hasControl(c.Model) || strings.HasPrefix(c.Model, "-") || len(c.Model) > 200 {
			refuse(path+"model", "is not a model name: it must not start with - or contain control characters")
		}
	}
	if s.Backend == BackendCommand {
		if s.Account != "" {
			refuse("account", "does not apply to backend command: remove it")
		}
		if len(s.Fallback) > 0 {
			refuse("fallback", "does not apply to backend command: remove it")
		}
		return
	}
	check("", Choice{Account: s.Account})
	if len(s.Fallback) > maxFallback {
		refuse("fallback", "is too long: name at most %d", maxFallback)
		return
	}
	for i, c := range s.Fallback {
		path := fmt.Sprintf("fallback.%d.", i)
		if ConfigVariable(c.Backend) == "" {
			refuse(path+"backend", "must be one of %s", strings.Join(Backends[1:], ", "))
		}
		check(path, c)
	}
}

func (s *Spec) validateCommand(refuse func(path, format string, args ...any)) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		refuse("command", `is required: set the program and its arguments as a list, for example ["sh","-c","echo hi"]`)
	}
	for i, a := range s.Command {
		if strings.ContainsRune(a, 0) {
			refuse(fmt.Sprintf("command.%d", i), "has a NUL byte: remove it")
		}
	}
	if s.Model != "" {
		refuse("model", "does not apply to backend command: remove it")
	}
	if s.Permission != "" {
		refuse("permission", "does not apply to backend command: remove it")
	}
	if len(s.Args) > 0 {
		refuse("args", "does not apply to backend command: put the arguments in command")
	}
	switch {
	case templateSize(s.Prompt) > MaxPrompt:
		refuse("prompt", "is too long: use at most %d bytes", MaxPrompt)
	case strings.ContainsRune(s.Prompt, 0):
		refuse("prompt", "has a NUL byte: remove it")
	}
	for _, f := range CheckTemplate(s.Prompt) {
		refuse("prompt", "%s", f)
	}
}

func (s *Spec) validateAgent(refuse func(path, format string, args ...any)) {
	if len(s.Command) > 0 {
		refuse("command", "applies to backend command only: use prompt, or set backend to command")
	}
	if s.TTY {
		refuse("tty", "applies to backend command only: remove it")
	}
	switch {
	case strings.TrimSpace(s.Prompt) == "":
		refuse("prompt", "is required for backend %s: describe the agent's task", s.Backend)
	case templateSize(s.Prompt) > MaxPrompt:
		refuse("prompt", "is too long: use at most %d bytes", MaxPrompt)
	case strings.ContainsRune(s.Prompt, 0):
		refuse("prompt", "has a NUL byte: remove it")
	}
	for _, f := range CheckTemplate(s.Prompt) {
		refuse("prompt", "%s", f)
	}
	if hasControl(s.Model) || strings.HasPrefix(s.Model, "-") || len(s.Model) > 200 {
		refuse("model", "is not a model name: it must not start with - or contain control characters")
	}
	if !slices.Contains([]Permission{PermissionRead, PermissionEdit, PermissionFull}, s.Permission) {
		refuse("permission", "must be read, edit or full")
	}
	for i, a := range s.Args {
		if strings.ContainsRune(a, 0) {
			refuse(fmt.Sprintf("args.%d", i), "has a NUL byte: remove it")
		}
	}
	if s.Backend == BackendAnthropic {
		if len(s.Args) > 0 {
			refuse("args", "does not apply to backend anthropic, which has no CLI: remove it")
		}
		if len(s.Paths) > 0 {
			refuse("paths", "does not apply to backend anthropic, which has no tools: remove it")
		}
	}
}

// WithDefaults returns the spec with its empty text fields filled in. Numbers
// are filled in where the input is read, because 0 has a meaning of its own.
func (s Spec) WithDefaults() Spec {
	if s.Overlap == "" {
		s.Overlap = OverlapQueue
	}
	if s.Permission == "" && s.Backend != BackendCommand && s.Agent == "" {
		s.Permission = PermissionEdit
	}
	return s
}

func validEnvName(name string) bool {
	if name == "" || len(name) > 256 || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for _, c := range []byte(name) {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// SecretEnv reports whether the value of a variable in the spec's env is a secret,
// which is masked in everything that its executions print. A value is one unless
// PlainEnv names the variable; for a variable of the server the name decides. The
// credential of a workspace always is one.
func (s *Spec) SecretEnv(name string) bool {
	if s.Workspace != nil && string(s.Workspace.Credential) == name {
		return true
	}
	if value, ok := s.Env[name]; ok && value != nil {
		return !slices.Contains(s.PlainEnv, name)
	}
	return SecretName(name)
}
