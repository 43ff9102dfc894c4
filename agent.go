package agented

import (
	"strings"
	"time"
)

// Agent is somebody to give work to: a role, goals, and the CLI that plays it.
type Agent struct {
	ID        AgentID
	Name      string // unique, ignoring case; letters, digits, - _ and . only, since addresses hold it
	Role      string // one line: what it is
	Goals     string // what it works towards, and how; the system prompt
	Enabled   bool
	Spec      Spec // backend chain, model, tools, directory, environment; its prompt is not used
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Bounds of an Agent.
const (
	MaxAgentName = 64       // bytes
	MaxRole      = 500      // bytes
	MaxGoals     = 64 << 10 // bytes; one argument of a command line holds it
)

// Validate returns every field of the agent that cannot stand, each with the
// mend. Names of fields are those of the API.
func (a *Agent) Validate() []Field {
	var bad []Field
	if f := checkHandle(a.Name); f != "" {
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
		bad = append(bad, Field{"backend", "must be one of an agent CLI: command has no conversation"})
	case spec.Agent != "":
		bad = append(bad, Field{"agent", "does not apply to an agent: remove it"})
	case spec.Prompt != "":
		bad = append(bad, Field{"prompt", "does not apply to an agent: use role and goals"})
	default:
		spec.Prompt = "x" // comes with each message
		bad = append(bad, spec.Validate()...)
	}
	return bad
}

// System is the system prompt that role and goals make.
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

// Fill makes the spec that a trigger which names the agent runs: the agent's,
// with the trigger's prompt, limits and overlap.
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
	return s
}

// checkHandle says what is wrong with a name that addresses hold, "" if nothing.
func checkHandle(name string) string {
	switch {
	case name == "":
		return "is required: give it a name"
	case len(name) > MaxAgentName:
		return "is too long: use at most 64 characters"
	case strings.HasPrefix(name, "-") || strings.HasPrefix(name, "."):
		return "may not start with - or .: start with a letter or a digit"
	}
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '_' && c != '.' {
			return "has a character that addresses cannot hold: use letters, digits, -, _ and ."
		}
	}
	return ""
}

// Conversation is a person's talk with an agent: messages, and a turn for each,
// in one session of the agent's CLI.
type Conversation struct {
	ID        ConversationID
	Agent     AgentID
	AgentName string // as it was when it began
	Title     string
	State     ConversationState
	Resume    *ResumePoint // where the next turn goes on; nil before the first has ended
	Turn      ExecutionID  // the turn under way; empty: none
	Queued    int          // messages that wait for their turn
	LastSeq   int64        // number of its last event
	Actor     string       // who began it
	CreatedAt time.Time
	ActiveAt  time.Time // last activity: a message, an event of a turn
	ClosedAt  time.Time // zero while open
}

// ConversationState is how a conversation stands. The values are stored and
// part of the API.
type ConversationState string

// The states of a conversation. One that is closed opens again when somebody
// writes.
const (
	ConversationOpen   ConversationState = "open"
	ConversationClosed ConversationState = "closed"
)

// ConversationEvent is one thing that happened in a conversation. Seq grows by
// one from 1; it is the id in the stream.
type ConversationEvent struct {
	Seq       int64
	Kind      ConversationEventKind
	Data      []byte      // JSON object
	Execution ExecutionID // the turn it belongs to; empty: none
	Source    Seq         // the line of the turn's log that it was read from; 0: none
	At        time.Time
}

// ConversationEventKind names an event of a conversation's stream.
type ConversationEventKind string

// The events of a conversation.
const (
	EventMessage      ConversationEventKind = "message"       // somebody said something, whole
	EventContentDelta ConversationEventKind = "content_delta" // a piece of an answer that is being written
	EventToolCall     ConversationEventKind = "tool_call"     // the agent used a tool, or a tool answered
	EventFinish       ConversationEventKind = "finish"        // a turn ended
	EventStatus       ConversationEventKind = "status_change" // queued, running, waiting, interrupted, closed
	EventError        ConversationEventKind = "error"         // a turn failed, or waits for a reason
	EventFullSync     ConversationEventKind = "full_sync"     // deltas before it are gone: the whole state, to begin from
)
