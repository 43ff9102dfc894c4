package agented

import "time"

// State is where an execution stands. The strings are stored and are the
// "status" of the API: they are never renamed.
type State string

// The states. A crash of the server changes none of them by itself.
const (
	// StatePending waits for ScheduledAt, for a free slot, or for a limit to
	// reset. Nobody owns it; a claim makes it running.
	StatePending State = "pending"
	// StateRunning has an open attempt and a lease. After a crash the attempt
	// is adopted, finished or settled, never forgotten.
	StateRunning State = "running"
	// StateSuccess is final: the backend read a good result.
	StateSuccess State = "success"
	// StateFailed is final: the CLI or its set-up failed.
	StateFailed State = "failed"
	// StateTimeout is final: the wall clock or the silence limit ended it.
	StateTimeout State = "timeout"
	// StateCancelled is final: someone asked, or an overlap rule did.
	StateCancelled State = "cancelled"
	// StateInterrupted is final: lost through no fault of the agent (its shim
	// was killed, the machine went down).
	StateInterrupted State = "interrupted"
)

// States lists every state in the order of a life.
var States = []State{
	StatePending, StateRunning, StateSuccess, StateFailed,
	StateTimeout, StateCancelled, StateInterrupted,
}

// Final reports whether an execution never leaves s.
func (s State) Final() bool {
	switch s {
	case StateSuccess, StateFailed, StateTimeout, StateCancelled, StateInterrupted:
		return true
	}
	return false
}

// Valid reports whether s is a state.
func (s State) Valid() bool { return s == StatePending || s == StateRunning || s.Final() }

// CanBecome reports whether an execution may go from s to next.
func (s State) CanBecome(next State) bool {
	switch s {
	case StatePending:
		return next == StateRunning || next == StateCancelled || next == StateFailed
	case StateRunning:
		return next == StatePending || next.Final()
	}
	return false
}

// Source is what fired an execution. The values are part of the API.
type Source string

// The sources.
const (
	SourceManual   Source = "manual" // a person or a script, through the API
	SourceSchedule Source = "schedule"
	SourceWebhook  Source = "webhook"
	SourceGitHub   Source = "github"
	SourceRetry    Source = "retry" // asked for on a final execution
	SourceMessage  Source = "message"
	SourceTurn     Source = "conversation" // a turn of a conversation
)

// Lease is a node's right to work an execution until a time. The token grows
// with every claim; a write with an old token is refused.
type Lease struct {
	Owner     NodeID
	Token     int64
	ExpiresAt time.Time
}

// Held reports whether somebody holds the lease at now.
func (l Lease) Held(now time.Time) bool { return l.Owner != "" && now.Before(l.ExpiresAt) }

// Execution is one firing of one trigger, carried to a final state.
type Execution struct {
	ID          ExecutionID
	Trigger     TriggerID // empty for an ad-hoc execution
	TriggerName string    // as it was when fired; stays when the trigger goes
	Backend     string
	State       State
	Reason      string // one sentence: why it waits, or why it ended so
	Source      Source
	Actor       string  // who fired it, for people; may be empty
	Cause       *Origin // what fired it; nil when somebody did by hand
	Chain       Chain   // what it was caused by; zero when it began a chain
	Prompt      string  // as rendered; empty for command
	Snapshot    Spec    // the trigger's spec as it was when fired
	RetryOf     ExecutionID
	AttemptNo   int       // number of the latest attempt; 0 before the first
	Attempts    []Attempt // in order; filled in where one execution or a page of them is shown
	LastSeq     Seq       // last line of the log; exact once final
	Lease       Lease
	Probes      AccountID // account that it tries, whatever its state; empty: none
	WaitingOn   string    // what a pending one is parked for; empty: it is not
	ParkedUntil time.Time // until when; zero: not known
	CancelAsked bool      // someone asked; the attempt may still be dying
	ExitCode    *int      // of the last attempt; nil while none has ended or it was killed by a signal
	Error       string
	Result      string // final text of the agent, bounded by MaxResult
	Usage       Usage
	EventSeq    int64 // number of its latest change, see ExecutionEvent
	CreatedAt   time.Time
	ScheduledAt time.Time
	StartedAt   time.Time // of the first attempt; zero before
	FinishedAt  time.Time // zero until final

	PinnedAt     time.Time // when somebody asked for it to be kept; zero: retention may take it
	PinnedBy     string
	LogRemovedAt time.Time // when retention took its log; zero: it is there

	Checkout *Checkout // what it works in; nil: no repository
	Pause    *Pause    // while it stands still; nil: it does not
}

// Origin names the row that says why an execution was fired. The JSON names are
// stored and part of the API.
type Origin struct {
	Kind     Source     `json:"kind"`                  // schedule, webhook or github
	Schedule ScheduleID `json:"schedule_id,omitempty"` // with DueAt, the tick
	DueAt    time.Time  `json:"due_at,omitzero"`
	Delivery DeliveryID `json:"delivery_id,omitempty"`

	Message      MessageID      `json:"message_id,omitempty"`
	Conversation ConversationID `json:"conversation_id,omitempty"`
}

// Duration is the time from the first attempt's start to the end; zero while
// either is missing.
func (e *Execution) Duration() time.Duration {
	if e.StartedAt.IsZero() || e.FinishedAt.IsZero() {
		return 0
	}
	return e.FinishedAt.Sub(e.StartedAt)
}

// MaxResult bounds Execution.Result in bytes. The log has the whole text.
const MaxResult = 256 << 10

// Attempt is one try: one process of one CLI.
type Attempt struct {
	Execution  ExecutionID
	Number     int // from 1
	Backend    string
	Account    AccountID // empty: it needs none
	Model      string    // as it was asked for; empty: the CLI's own choice
	CLIVersion string    // what the CLI said of itself; empty for command
	State      State     // running or final
	ExitCode   *int      // nil when it did not exit by itself
	Signal     string    // "SIGKILL", when a signal ended it
	Reason     string
	Usage      Usage
	SessionID  string
	StartedAt  time.Time
	FinishedAt time.Time

	Class       Class     // whose doing its end was; empty: it went well, or somebody here ended it
	Evidence    string    // what Class was read from
	RetryAt     time.Time // when the next one was planned for; zero: not, or not known
	ResumedFrom string    // session that it went on with; empty: it began afresh
	SessionGone bool      // the CLI does not have that session any more
}

// Usage is what an attempt or an execution consumed. A nil field is unknown,
// which is not the same as zero.
type Usage struct {
	InputTokens       *int64   `json:"input_tokens"`
	OutputTokens      *int64   `json:"output_tokens"`
	CacheReadTokens   *int64   `json:"cache_read_tokens"`
	CacheWriteTokens  *int64   `json:"cache_write_tokens"`
	CostUSD           *float64 `json:"cost_usd"`
	CumulativeSession bool     `json:"cumulative_session,omitempty"` // the numbers count the whole session so far
	Estimated         bool     `json:"cost_estimated,omitempty"`     // the cost was worked out from a list of prices
}

// Known reports whether anything is known.
func (u Usage) Known() bool {
	return u.InputTokens != nil || u.OutputTokens != nil || u.CacheReadTokens != nil ||
		u.CacheWriteTokens != nil || u.CostUSD != nil
}

// ExecutionEvent is one change of one execution. Seq grows over all executions
// of a database, so that a follower can resume after the last one it saw.
type ExecutionEvent struct {
	Seq       int64
	Execution *Execution // as it was right after the change; must not be changed
}
