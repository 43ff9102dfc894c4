package agented

import (
	"encoding/json"
	"time"
)

// Capture is how a CLI's output is captured. docs/adr explains why it differs
// by backend.
type Capture string

// The ways to capture output.
const (
	CaptureFile Capture = "file" // two private files that the shim tails
	CapturePipe Capture = "pipe" // two pipes that the shim buffers before writing to disk
	CapturePTY  Capture = "pty"  // one pseudo-terminal; all output is stdout
)

// Command is the process that a shim starts. Env is complete: the process
// inherits no variable.
type Command struct {
	Path    string   // absolute path of the program
	Args    []string // arguments, Args[0] is the program's name
	Env     []string // NAME=VALUE; holds secrets, so it is never written to disk
	Dir     string   // working directory, absolute
	Stdin   []byte   // written to a file that becomes stdin; nil means /dev/null
	Capture Capture
}

// Cause is why an attempt ended, as observed by its shim.
type Cause string

// The causes.
const (
	CauseExit      Cause = "exit"       // the process exited by itself
	CauseTimeout   Cause = "timeout"    // wall-clock limit
	CauseSilence   Cause = "silence"    // limit on time without output
	CauseStalled   Cause = "stuck"      // no progress while waiting for a limit, an overload or a network
	CauseLingered  Cause = "lingered"   // it printed its final result and did not exit
	CauseStopped   Cause = "stopped"    // SIGSTOP, SIGTTIN or SIGTTOU stopped it repeatedly
	CauseCancelled Cause = "cancelled"  // cancelled on request
	CauseOutputCap Cause = "output_cap" // printed more than the output limit
	CauseDiskFull  Cause = "disk_full"  // no disk space for its log
	CauseDiskLimit Cause = "disk_limit" // its files used more than its limit
	CauseNoStart   Cause = "no_start"   // the program could not be started
	CauseShutdown  Cause = "shutdown"   // the machine is shutting down
	CauseLost      Cause = "lost"       // the shim died before the process ended
)

// Exit is how an attempt's process ended, without interpretation.
type Exit struct {
	Cause      Cause     `json:"cause"`
	Code       *int      `json:"code,omitempty"`      // nil when a signal ended it or it never started
	Signal     string    `json:"signal,omitempty"`    // "SIGTERM"
	Detail     string    `json:"detail,omitempty"`    // one sentence for people: why it did not start, how long it printed nothing
	Survivors  []string  `json:"survivors,omitempty"` // leftover processes that were terminated: "1234 node server.js"
	Class      Class     `json:"class,omitempty"`     // if it did not start: who is responsible, when known
	LastSeq    Seq       `json:"last_seq"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
}

// Outcome is the meaning of an attempt's end. The closed set is part of the
// API.
type Outcome string

// The outcomes.
const (
	OutcomeSuccess     Outcome = "success"
	OutcomeFailed      Outcome = "failed"       // the agent or its task failed
	OutcomeRateLimited Outcome = "rate_limited" // the account is limited; not the agent's fault
	OutcomeTransient   Outcome = "transient"    // overload or network; not the agent's fault
	OutcomeAuth        Outcome = "auth"         // the account's credentials were rejected
	OutcomeTimeout     Outcome = "timeout"
	OutcomeCancelled   Outcome = "cancelled"
	OutcomeInterrupted Outcome = "interrupted"
)

// State returns the final state for the outcome when no retry follows.
func (o Outcome) State() State {
	switch o {
	case OutcomeSuccess:
		return StateSuccess
	case OutcomeTimeout:
		return StateTimeout
	case OutcomeCancelled:
		return StateCancelled
	case OutcomeInterrupted:
		return StateInterrupted
	}
	return StateFailed
}

// Result is a backend's interpretation of an attempt.
type Result struct {
	Outcome     Outcome
	Reason      string    // one sentence for people; empty on plain success
	Text        string    // the agent's final answer, at most MaxResult bytes
	SessionID   string    // session to resume; empty if the CLI reported none
	CLIVersion  string    // if the output contains it
	RetryAfter  time.Time // when the limit resets; zero if unknown
	Class       Class     // who is responsible; empty on success, and when Agented or a user ended it
	Limit       Limit     // limit reported in the output; its Class is empty if there is none
	SessionGone bool      // the session to resume does not exist for the CLI: start a new one
	Usage       Usage
	OverBudget  bool            `json:"-"` // the CLI stopped at the budget passed to it
	Output      json.RawMessage `json:"-"` // structured result, if the CLI reported one
	Pending     []string        `json:"-"` // background tasks that had not ended when the CLI did
	DeniedTools []string        // tools that the permission mode refused: "Bash: rm -rf x"
}

// TokenPrefix begins the token that an attempt receives as its API key.
const TokenPrefix = "agx_"
