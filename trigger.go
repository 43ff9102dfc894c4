package agented

import (
	"strings"
	"time"
)

// Overlap says what a firing does while an earlier execution of the same
// trigger has not ended.
type Overlap string

// The overlap rules.
const (
	OverlapQueue   Overlap = "queue"   // wait for its turn
	OverlapSkip    Overlap = "skip"    // do not run
	OverlapReplace Overlap = "replace" // cancel the earlier ones and run
)

// Permission says how freely an agent may act without asking. Each backend
// maps it to its own modes; see docs/reference/backends.md.
type Permission string

// The permissions.
const (
	PermissionRead Permission = "read" // look, change nothing
	PermissionEdit Permission = "edit" // change files in the working directory
	PermissionFull Permission = "full" // run anything
)

// The backends by name. The values are part of the API.
const (
	BackendCommand  = "command"
	BackendClaude   = "claude"
	BackendCodex    = "codex"
	BackendGemini   = "gemini"
	BackendOpenCode = "opencode"
	// BackendAnthropic asks Anthropic's API directly, without tools.
	BackendAnthropic = "anthropic"
)

// Backends lists the backends in the order that people see.
var Backends = []string{BackendCommand, BackendClaude, BackendCodex, BackendGemini, BackendOpenCode, BackendAnthropic}

// Trigger is when to work and what to ask.
type Trigger struct {
	ID        TriggerID
	Name      string // unique, ignoring case
	Enabled   bool
	Spec      Spec
	Schedules []Schedule    // filled in where one trigger is shown or written
	Webhooks  []Webhook     // likewise
	Messages  []MessageRule // likewise
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Spec is what a trigger runs: the part of it that an execution keeps a copy
// of. The JSON names are those of the API.
type Spec struct {
	Backend        string             `json:"backend"`
	Command        []string           `json:"command,omitempty"` // backend command: program and arguments
	TTY            bool               `json:"tty,omitempty"`     // backend command: run on a pseudo-terminal
	Prompt         string             `json:"prompt,omitempty"`  // template, see [Render]; backend command gets it on standard input
	Model          string             `json:"model,omitempty"`
	Permission     Permission         `json:"permission,omitempty"`
	Args           []string           `json:"args,omitempty"`        // raw extra arguments; only an admin may set them
	WorkingDir     string             `json:"working_dir,omitempty"` // absolute; empty is the execution's own directory
	Paths          []string           `json:"paths,omitempty"`       // further directories the agent may use; {paths} in a prompt
	TimeoutSeconds int                `json:"timeout_seconds"`
	SilenceSeconds int                `json:"silence_timeout_seconds"`
	Env            map[string]*string `json:"env,omitempty"` // null passes the server's variable of that name on
	MaxConcurrent  int                `json:"max_concurrent"`
	Overlap        Overlap            `json:"overlap"`
	Account        AccountID          `json:"account,omitempty"`       // id or name; empty is any account of the backend
	Fallback       []Choice           `json:"fallback,omitempty"`      // tried in order when nothing before it is ready
	Retry          RetryPolicy        `json:"retry,omitzero"`          // what follows an attempt that did not succeed
	Workspace      *Workspace         `json:"workspace,omitempty"`     // a git repository to work in
	CeilingUSD     float64            `json:"ceiling_usd,omitempty"`   // cost at which a running execution is paused and asks; 0 is none
	Agent          string             `json:"agent,omitempty"`         // id or name of an agent that gives prompt and backend settings
	SystemPrompt   string             `json:"system_prompt,omitempty"` // role and goals, where the backend takes them apart from the prompt
	Resume         *ResumePoint       `json:"resume,omitempty"`        // set by the server only
}

// Defaults and bounds of a Spec.
const (
	DefaultTimeoutSeconds = 3600
	MaxTimeoutSeconds     = 30 * 24 * 3600
	DefaultMaxConcurrent  = 1
	MaxPrompt             = 1 << 20 // bytes of a prompt template and of a rendered prompt
	MaxName               = 200     // bytes of a trigger's name
)

// Environment names that say where an execution is; set in every child.
const (
	EnvExecution = "AGENTED_EXECUTION_ID"
	EnvTrigger   = "AGENTED_TRIGGER_ID"
	EnvAttempt   = "AGENTED_ATTEMPT"
)

// Validate returns every field of the trigger that cannot stand, each with the
// mend. Names of fields are those of the API.
func (t *Trigger) Validate() []Field {
	var bad []Field
	name := strings.TrimSpace(t.Name)
	switch {
	case name == "":
		bad = append(bad, Field{"name", "is required: give the trigger a name"})
	case len(t.Name) > MaxName:
		bad = append(bad, Field{"name", "is too long: use at most 200 bytes"})
	case name != t.Name:
		bad = append(bad, Field{"name", "starts or ends with white space: trim it"})
	case hasControl(t.Name):
		bad = append(bad, Field{"name", "has a control character: use printable characters"})
	}
	return append(bad, t.Spec.Validate()...)
}
