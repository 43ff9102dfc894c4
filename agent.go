package agented

import (
	"strings"
	"time"
)

// Agent is a named recipient of work: a role, goals, and the CLI that runs it.
type Agent struct {
	ID        AgentID
	Name      string // unique, ignoring case; only letters, digits, - _ and . since addresses contain it
	Role      string // one line: what the agent is
	Goals     string // what it works towards, and how; used as the system prompt
	Enabled   bool
	Spec      Spec // fallback chain, model, tools, directory, environment; its prompt is not used
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Limits of an Agent.
const (
	MaxAgentName = 64       // bytes
	MaxRole      = 500      // bytes
	MaxGoals     = 64 << 10 // bytes; passed as one command-line argument
)

// Validate returns every invalid field of the agent with its fix. Fields are
// named as in the API.
func (a *Agent) Validate() []Field {
	var bad []Field
	if f := handleError(a.Name); f != "" {
		bad = append(bad, Field{"name", f})
	}
	switch {
	case len(a.Role) > MaxRole:
		bad = append(bad, Field{"role", "is too long: use at most 500 bytes, and put the rest into goals"})
	case hasControl(a.Role):
		bad = append(bad, Field{"role", "has a control character: use one line of printable characters"})
	}
	switch {
	case len(a.Goals) > MaxGoals:
		bad = append(bad, Field{"goals", "is too long: use at most 64 KiB"})
	case strings.ContainsRune(a.Goals, 0):
		bad = append(bad, Field{"goals", "has a NUL byte: remove it"})
	}
	spec := a.Spec
	switch {
	case spec.Backend == BackendCommand:
		bad = append(bad, Field{"backend", "must be an agent backend: command has no conversation"})
	case spec.Agent != "":
		bad = append(bad, Field{"agent", "does not apply to an agent: remove it"})
	case spec.Prompt != "":
		bad = append(bad, Field{"prompt", "does not apply to an agent: use role and goals"})
	default:
		spec.Prompt = "x" // each message brings its own prompt
		bad = append(bad, spec.Validate()...)
	}
	return bad
}

// System returns the system prompt made of role and goals.
func (a *Agent) System() string {
	var parts []string
	if a.Role != "" {
		parts = append(parts, "You are "+a.Name+": "+a.Role)
	} else {
		parts = append(parts, "You are "+a.Name+".")
	}
	if a.Goals != "" {
		parts = append(parts, a.Goals)
	}
	return strings.Join(parts, "\n\n")
}

// Fill returns the spec of a trigger that names the agent: the agent's spec
// with the trigger's prompt, limits and overlap, the stronger sandbox and the lower limits.
func (a *Agent) Fill(t Spec) Spec {
	s := a.Spec
	s.Agent = string(a.ID)
	s.SystemPrompt = a.System()
	s.Prompt = t.Prompt
	if s.Prompt == "" {
		s.Prompt = "{message}"
	}
	s.TimeoutSeconds, s.SilenceSeconds = t.TimeoutSeconds, t.SilenceSeconds
	s.MaxConcurrent, s.Overlap = t.MaxConcurrent, t.Overlap
	if t.CeilingUSD > 0 && (s.CeilingUSD == 0 || t.CeilingUSD < s.CeilingUSD) {
		s.CeilingUSD = t.CeilingUSD
	}
	s.Expect = t.Expect
	s.Limits = s.Limits.Lower(t.Limits)
	s.Publish, s.PublishTo = t.Publish, t.PublishTo
	if t.Sandbox.Stronger(s.Sandbox) {
		s.Sandbox = t.Sandbox
	}
	return s
}

// handleError returns why a name cannot be part of an address, or "".
func handleError(name string) string {
	switch {
	case name == "":
		return "is required: set a name"
	case len(name) > MaxAgentName:
		return "is too long: use at most 64 characters"
	case strings.HasPrefix(name, "-") || strings.HasPrefix(name, "."):
		return "may not start with - or .: start with a letter or a digit"
	}
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '_' && c != '.' {
			return "has a character that is not allowed in addresses: use letters, digits, -, _ and ."
		}
	}
	return ""
}

// Conversation is a series of messages to an agent. Each message gets a turn,
// and all turns run in one session of the agent's CLI.
type Conversation struct {
	ID        ConversationID
	Agent     AgentID
	AgentName string // name of the agent when the conversation began
	Title     string
	State     ConversationState
	Resume    *ResumePoint // where the next turn resumes; nil until the first turn has ended
	Turn      ExecutionID  // the current turn; empty: none
	Queued    int          // messages waiting for their turn
	LastSeq   int64        // number of its latest event
	Actor     string       // who started it
	CreatedAt time.Time
	ActiveAt  time.Time // time of the latest message or turn event
	ClosedAt  time.Time // zero while open
}

// ConversationState is the state of a conversation. The values are stored and
// part of the API.
type ConversationState string

// The states of a conversation. A new message reopens a closed conversation.
const (
	ConversationOpen   ConversationState = "open"
	ConversationClosed ConversationState = "closed"
)

// ConversationEvent is one event of a conversation. Seq counts from 1 without
// gaps; it is the id in the event stream.
type ConversationEvent struct {
	Seq       int64
	Kind      ConversationEventKind
	Data      []byte      // JSON object
	Execution ExecutionID // the turn it belongs to; empty: none
	Source    Seq         // the line of the turn's log that it was derived from; 0: none
	At        time.Time
}

// ConversationEventKind is the name of an event in a conversation's stream.
type ConversationEventKind string

// The events of a conversation.
const (
	EventMessage      ConversationEventKind = "message"       // a complete message
	EventContentDelta ConversationEventKind = "content_delta" // a piece of an answer that is still being written
	EventToolCall     ConversationEventKind = "tool_call"     // the agent called a tool, or a tool returned
	EventFinish       ConversationEventKind = "finish"        // a turn ended
	EventStatus       ConversationEventKind = "status_change" // queued, running, waiting, interrupted or closed
	EventError        ConversationEventKind = "error"         // a turn failed, or waits for a reason
	EventFullSync     ConversationEventKind = "full_sync"     // earlier deltas are gone: the whole state to start from
)
