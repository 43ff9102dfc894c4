package agented

import "time"

// State is the state of an execution. The values are stored and are the
// "status" of the API: they are never renamed.
type State string

// The states. A crash of the server does not change them by itself.
const (
	// StatePending waits for ScheduledAt, for a free slot, or for a limit to
	// reset. It has no lease; a claim makes it running.
	StatePending State = "pending"
	// StateRunning has an open attempt and a lease. After a crash the server
	// adopts the attempt, or settles it with its outcome.
	StateRunning State = "running"
	// StateSuccess is final: the backend classified the result as good.
	StateSuccess State = "success"
	// StateFailed is final: the CLI or its setup failed.
	StateFailed State = "failed"
	// StateTimeout is final: the wall-clock limit or the silence limit ended
	// it.
	StateTimeout State = "timeout"
	// StateCancelled is final: a user or an overlap rule cancelled it.
	StateCancelled State = "cancelled"
	// StateInterrupted is final: lost through no fault of the agent (its shim
	// was killed, or the machine went down).
	StateInterrupted State = "interrupted"
)

// States lists every state in the order of a life cycle.
var States = []State{
	StatePending, StateRunning, StateSuccess, StateFailed,
	StateTimeout, StateCancelled, StateInterrupted,
}

// Final reports whether s is a final state.
func (s State) Final() bool {
	switch s {
	case StateSuccess, StateFailed, StateTimeout, StateCancelled, StateInterrupted:
		return true
	}
	return false
}

// Valid reports whether s is a state.
func (s State) Valid() bool { return s == StatePending || s == StateRunning || s.Final() }

// CanBecome reports whether the transition from s to next is allowed.
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
	SourceRetry    Source = "retry" // a retry of a final execution
	SourceMessage  Source = "message"
	SourceTurn     Source = "conversation" // a turn of a conversation
)

// Lease is a node's exclusive right to run an execution until a time. The token
// grows with every claim; a write with an older token is rejected.
type Lease struct {
	Owner     NodeID
	Token     int64
	ExpiresAt time.Time
}

// Held reports whether a node holds the lease at now.
func (l Lease) Held(now time.Time) bool { return l.Owner != "" && now.Before(l.ExpiresAt) }

// Execution is one firing of one trigger, run until it reaches a final state.
type Execution struct {
	ID           ExecutionID
	Trigger      TriggerID // empty for an ad-hoc execution
	TriggerName  string    // name at the time of firing; remains when the trigger is deleted
	Backend      string
	State        State
	Reason       string // one sentence: why it is waiting, or why it ended
	Source       Source
	Actor        string  // who fired it, for display; may be empty
	Cause        *Origin // what fired it; nil for a manual run
	Chain        Chain   // chain of causes; zero when it began a chain
	Prompt       string  // as rendered; empty for command
	Snapshot     Spec    // the trigger's spec at the time of firing
	RetryOf      ExecutionID
	AttemptNo    int       // number of the latest attempt; 0 before the first
	Attempts     []Attempt // in order; set where one execution or a page of them is shown
	LastSeq      Seq       // last line of the log; exact once final
	Lease        Lease
	ProbeAccount AccountID // account to try regardless of its state; empty: none
	WaitingOn    string    // what a parked execution waits for; empty: not parked
	ParkedUntil  time.Time // end of the wait; zero: unknown
	CancelAsked  bool      // cancellation was requested; the attempt may still be ending
	ExitCode     *int      // of the last attempt; nil until one has ended, or if a signal killed it
	Error        string
	Result       string // final text of the agent, bounded by MaxResult
	Usage        Usage
	EventSeq     int64 // number of its latest change, see ExecutionEvent
	CreatedAt    time.Time
	ScheduledAt  time.Time
	StartedAt    time.Time // of the first attempt; zero before
	FinishedAt   time.Time // zero until final

	PinnedAt     time.Time // when a user pinned it; zero: retention may remove it
	PinnedBy     string
	LogRemovedAt time.Time // when retention removed its log; zero: the log exists

	Checkout *Checkout // what it works in; nil: no repository
	// Publications are what it publishes, in order, without their proposals.
	Publications []Publication
	Pause        *Pause // set while it is paused
}

// Origin identifies the row that caused an execution. The JSON names are stored
// and part of the API.
type Origin struct {
	Kind     Source     `json:"kind"`                  // schedule, webhook or github
	Schedule ScheduleID `json:"schedule_id,omitempty"` // with DueAt, the tick
	DueAt    time.Time  `json:"due_at,omitzero"`
	Delivery DeliveryID `json:"delivery_id,omitempty"`

	Message      MessageID      `json:"message_id,omitempty"`
	Conversation ConversationID `json:"conversation_id,omitempty"`
}

// Duration returns the time from the start of the first attempt to the end;
// zero while either is unknown.
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
	Account    AccountID // empty: it uses no account
	Model      string    // as requested; empty: the CLI's default
	CLIVersion string    // as reported by the CLI; empty for command
	Sandbox    Isolation // level that it ran at; empty: it did not start, or an older version ran it
	State      State     // running or final
	ExitCode   *int      // nil unless it exited by itself
	Signal     string    // "SIGKILL", when a signal ended it
	Reason     string
	Usage      Usage
	SessionID  string
	StartedAt  time.Time
	FinishedAt time.Time

	Class       Class     // who is responsible for its end; empty: it succeeded, or Agented or a user ended it
	Evidence    string    // output from which Class was derived
	RetryAt     time.Time // planned time of the next attempt; zero: none or unknown
	ResumedFrom string    // session that it resumed; empty: it started a new one
	SessionGone bool      // the CLI no longer has that session

	Changes  *Changes   // what it changed; nil: it has not ended, or there was nothing to compare
	Broker   *BrokerUse // what its broker did; nil: it has not ended, or it had none
	Contract *Contract  // evaluation of its outcome contract; nil: there is none, or the attempt failed before. In lists it has no clauses and only a short output
}

// BrokerUse is what the broker of an attempt did.
type BrokerUse struct {
	Credentials bool             `json:"credentials" doc:"Whether the broker held the credentials, so that the processes had placeholders"`
	Refused     []RefusedAddress `json:"refused,omitempty" doc:"Addresses that were refused, because network.allow does not include them; at most 50"`
	More        int              `json:"more,omitempty" doc:"Number of refusals of addresses that are not listed"`
}

// RefusedAddress is an address that an attempt was not allowed to reach.
type RefusedAddress struct {
	Address string `json:"address" doc:"Host and port"`
	Reason  string `json:"reason" doc:"Why it was refused"`
	Count   int    `json:"count" doc:"How often; a lower bound if the supervisor was killed"`
}

// Changes counts what an attempt changed in its repository, and its artifacts. The details are in
// files of the execution's folder. The JSON names are stored.
type Changes struct {
	Attempt       int    `json:"attempt"`
	Base          string `json:"base,omitempty"` // commit at the start; empty: none, or no repository
	Head          string `json:"head,omitempty"` // commit at the end
	Commits       int    `json:"commits,omitempty"`
	Files         int    `json:"files,omitempty"`
	Added         int    `json:"added,omitempty"` // lines
	Removed       int    `json:"removed,omitempty"`
	Artifacts     int    `json:"artifacts,omitempty"`
	ArtifactBytes int64  `json:"artifact_bytes,omitempty"`
	Truncated     bool   `json:"truncated,omitempty"` // a part was not recorded
	Reason        string `json:"reason,omitempty"`    // why it is truncated, or could not be recorded
}

// Changes returns the counts of the latest attempt that has them, or nil.
func (e *Execution) Changes() *Changes {
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		if c := e.Attempts[i].Changes; c != nil {
			return c
		}
	}
	return nil
}

// Usage is what an attempt or an execution consumed. A nil field is unknown,
// which is different from zero.
type Usage struct {
	InputTokens       *int64   `json:"input_tokens"`
	OutputTokens      *int64   `json:"output_tokens"`
	CacheReadTokens   *int64   `json:"cache_read_tokens"`
	CacheWriteTokens  *int64   `json:"cache_write_tokens"`
	CostUSD           *float64 `json:"cost_usd"`
	CumulativeSession bool     `json:"cumulative_session,omitempty"` // the numbers are totals of the whole session so far
	Estimated         bool     `json:"cost_estimated,omitempty"`     // the cost was estimated from a price list
}

// Known reports whether any field is known.
func (u Usage) Known() bool {
	return u.InputTokens != nil || u.OutputTokens != nil || u.CacheReadTokens != nil ||
		u.CacheWriteTokens != nil || u.CostUSD != nil
}

// ExecutionEvent is one change of one execution. Seq grows over all executions
// of a database, so that a subscriber can resume after the last one it
// received.
type ExecutionEvent struct {
	Seq       int64
	Execution *Execution // state right after the change; read-only
}

// Pause is the pause of a running execution. Its state stays running; paused
// time does not count toward the limits of time and silence.
type Pause struct {
	At       time.Time
	Until    time.Time // when the execution is ended
	Reason   string    // one sentence
	By       string    // who paused it; empty: the server
	Question Question  // the question for a person; empty: none
	SpentUSD float64   // for a question: the cost so far
	LimitUSD float64   // for a question: the ceiling or budget that was reached
}

// Question is the question of a paused execution. The values are stored and
// part of the API.
type Question string

// The questions.
const (
	QuestionNone    Question = ""
	QuestionCeiling Question = "ceiling" // continue with a higher ceiling, or end?
	QuestionBudget  Question = "budget"  // continue over the budget, or end?
)

// DefaultPause is the longest pause before an execution is ended.
const DefaultPause = 24 * time.Hour
