package agentcli

import (
	"encoding/json"

	"github.com/agented/agented"
)

// Kind is the kind of an Event.
type Kind string

// The kinds of events. The values are part of the API.
const (
	KindStarted     Kind = "session"     // a session began or was resumed
	KindMessage     Kind = "message"     // a message of the agent, or the prompt
	KindReasoning   Kind = "reasoning"   // the agent's reasoning
	KindDelta       Kind = "delta"       // a piece of the message that is being written
	KindToolCall    Kind = "tool_call"   // a tool was called
	KindToolResult  Kind = "tool_result" // a tool has ended
	KindDenied      Kind = "denied"      // the permission mode denied a tool
	KindUsage       Kind = "usage"       // the usage of one answer of the model
	KindLimit       Kind = "limit"       // the state of a limit of the account
	KindRetry       Kind = "retry"       // the CLI retries after an error of the model's API
	KindError       Kind = "error"       // an error, which may not be the end
	KindWarning     Kind = "warning"     // a problem that the CLI works around
	KindResult      Kind = "result"      // the end of a turn
	KindTurn        Kind = "turn"        // a turn began
	KindStepStarted Kind = "step_started"
	KindStep        Kind = "step"    // a step of a turn ended
	KindTask        Kind = "task"    // a background task
	KindNote        Kind = "note"    // a fact for people
	KindUnknown     Kind = "unknown" // an object of the protocol without a meaning here

	// A line outside of the CLI's protocol. These are not part of the API.
	KindText Kind = "text"
	KindLog  Kind = "log" // of the CLI's own log
)

// The values of Role of a KindDelta.
const (
	DeltaStart     = "start" // of a message
	DeltaText      = "text"
	DeltaReasoning = "reasoning"
	DeltaInput     = "input" // of a tool
)

// Mark is a set of properties of an event that the consumers of events use.
type Mark uint16

// The marks.
const (
	Resumes    Mark = 1 << iota // the CLI continues after a result
	Recovered                   // the model's API has answered: an announced retry is over
	Works                       // a tool has done something
	Restarts                    // the final answer begins with this event
	Idle                        // no progress
	Opens                       // what ID names runs now
	Closes                      // what ID names has ended
	Final                       // no later event corrects the usage; an error that can be the last one
	Adds                        // the usage counts since the previous result, otherwise it is a total
	Lenient                     // a field has an unexpected type
	Untyped                     // the object has no type: it may come from another program
	Withheld                    // the tool does not exist, or the permission mode withheld it
	Empty                       // an error without any work before it
	Unstated                    // the result states neither success nor failure
	OverBudget                  // the CLI stopped at its budget
	Fallback                    // counts only if nothing else says the same
)

// Event is one normalised statement of an agent CLI. The same line always gives the same events.
// Fields without a name in JSON are for the consumers in this package.
type Event struct {
	Kind  Kind            `json:"kind" enum:"session,message,reasoning,delta,tool_call,tool_result,denied,usage,limit,retry,error,warning,result,turn,step_started,step,task,note,unknown" doc:"unknown: an object of the CLI's protocol that has no event here"`
	ID    string          `json:"id,omitempty" doc:"Id of a tool call and its result, of an answer of the model, or of a background task"`
	Role  string          `json:"role,omitempty" doc:"Of a message: user or assistant; of a delta: start, text, reasoning or input"`
	Tool  string          `json:"tool,omitempty" doc:"Name of the tool"`
	Text  string          `json:"text,omitempty" doc:"The message, a piece of it, the reasoning, the result of a tool or of the turn, or a sentence about an error"`
	Input json.RawMessage `json:"input,omitempty" doc:"Input of the tool"`

	Failed   bool `json:"failed,omitempty" doc:"The tool or the turn failed"`
	Refused  bool `json:"refused,omitempty" doc:"The tool was not run"`
	Piece    bool `json:"piece,omitempty" doc:"The message continues the previous one"`
	Hidden   bool `json:"hidden,omitempty" doc:"The provider does not show the reasoning"`
	SubAgent bool `json:"sub_agent,omitempty" doc:"From a sub-agent"`
	Remote   bool `json:"remote,omitempty" doc:"The provider runs the tool"`
	Update   bool `json:"update,omitempty" doc:"A later state of a call"`
	Repeated bool `json:"repeated,omitempty" doc:"Another event may report the same"`

	Title     string          `json:"title,omitempty" doc:"Name of the tool for people, if it differs from tool"`
	Summary   string          `json:"summary,omitempty" doc:"What the tool works on, or what it was denied"`
	Arguments json.RawMessage `json:"arguments,omitempty" doc:"The complete input, if it differs from input"`
	Detail    string          `json:"detail,omitempty" doc:"Text for people if text is empty, such as the error of a tool"`
	ExitCode  *int            `json:"exit_code,omitempty" doc:"Exit code of a command"`

	Session string `json:"session_id,omitempty" doc:"Session of the CLI"`
	Model   string `json:"model,omitempty"`
	Version string `json:"cli_version,omitempty"`
	Folder  string `json:"folder,omitempty" doc:"Working directory of the CLI"`
	Mode    string `json:"mode,omitempty" doc:"Permission mode, in the CLI's words"`

	Usage      *agented.Usage `json:"usage,omitempty" doc:"Usage of an answer of the model, or of a result"`
	Turns      *int64         `json:"turns,omitempty"`
	DurationMS *int64         `json:"duration_ms,omitempty"`
	Reason     string         `json:"reason,omitempty" doc:"Why a step or a turn ended, in the CLI's words"`

	Status     string  `json:"status,omitempty" doc:"State of a limit, in the CLI's words"`
	Window     string  `json:"window,omitempty" doc:"Window of a limit, in the CLI's words"`
	ResetsAt   float64 `json:"resets_at,omitempty" doc:"When a limit resets, in seconds or milliseconds since 1970"`
	HTTPStatus int     `json:"http_status,omitempty" doc:"Status of the answer of the model's API"`
	APIError   string  `json:"api_error,omitempty" doc:"Type of an error of the model's API, in the CLI's words"`
	Attempt    int64   `json:"attempt,omitempty" doc:"Number of a retry"`
	Attempts   int64   `json:"attempts,omitempty" doc:"Maximum number of retries"`
	RetryAfter int64   `json:"retry_after_ms,omitempty" doc:"Time until a retry"`

	Marks   Mark              `json:"-"`
	Error   *Failure          `json:"-"` // of a retry, an error or a result
	Headers map[string]string `json:"-"` // retry headers of the API's answer, names in lower case
	Parts   []string          `json:"-"` // the parts of Text, if there are several
	Cost    Number            `json:"-"` // as printed: of an answer, or the running total of a result
	Output  json.RawMessage   `json:"-"` // structured result
	Line    []byte            `json:"-"` // the line of KindText and KindLog; valid until the next line
}

// Has reports whether the event has all of the marks.
func (e *Event) Has(m Mark) bool { return e.Marks&m == m }

// Decode returns the events of one whole line without its newline. It accepts any bytes, and its
// memory is bounded by the size of the line.
func Decode(cli CLI, stream agented.Stream, content []byte) []Event {
	var out []Event
	known := false
	if stream == agented.Stdout && cli.Rules().Protocol {
		for _, o := range objects(content) {
			events, typed := cli.Object(o)
			if !typed {
				for i := range events {
					events[i].Marks |= Untyped
				}
			}
			known = known || typed
			out = append(out, events...)
		}
	}
	if known {
		return out
	}
	return append(out, cli.Text(stream, content)...)
}

// Plain returns the event of a line outside of the protocol.
func Plain(content []byte) Event { return Event{Kind: KindText, Marks: Idle, Line: content} }
