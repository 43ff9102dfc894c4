package agented

import "time"

// Capture says how a CLI's output is taken. See docs/adr for why it differs by
// backend.
type Capture string

// The ways to take output.
const (
	CaptureFile Capture = "file" // two private files that the shim follows
	CapturePipe Capture = "pipe" // two pipes that the shim reads ahead of the disk
	CapturePTY  Capture = "pty"  // one pseudo-terminal; everything is stdout
)

// Command is what a shim starts. Env is complete: nothing is inherited.
type Command struct {
	Path    string   // absolute path of the program
	Args    []string // arguments, Args[0] is the program's name
	Env     []string // NAME=VALUE; holds secrets, so it is never written to disk
	Dir     string   // working directory, absolute
	Stdin   []byte   // written to a file that becomes stdin; nil is /dev/null
	Capture Capture
}

// Cause is why an attempt ended, as its shim saw it.
type Cause string

// The causes.
const (
	CauseExit      Cause = "exit"       // it ended by itself
	CauseTimeout   Cause = "timeout"    // the wall clock limit
	CauseSilence   Cause = "silence"    // the limit for printing nothing
	CauseStuck     Cause = "stuck"      // it waited on a limit, an overload or a network without getting on
	CauseCancelled Cause = "cancelled"  // asked to stop
	CauseOutputCap Cause = "output_cap" // printed more than allowed
	CauseDiskFull  Cause = "disk_full"  // nowhere left to write its log
	CauseNoStart   Cause = "no_start"   // the program could not be started
	CauseShutdown  Cause = "shutdown"   // the machine is going down
	CauseLost      Cause = "lost"       // nobody was there to see it
)

// Exit is what became of an attempt's process, whatever it means.
type Exit struct {
	Cause      Cause     `json:"cause"`
	Code       *int      `json:"code,omitempty"`      // nil when a signal ended it or it never started
	Signal     string    `json:"signal,omitempty"`    // "SIGTERM"
	Detail     string    `json:"detail,omitempty"`    // one sentence for people: why it did not start, how long it was silent
	Survivors  []string  `json:"survivors,omitempty"` // processes that it left behind and that were ended: "1234 node server.js"
	Class      Class     `json:"class,omitempty"`     // of one that did not start: whose doing, where that is known
	LastSeq    Seq       `json:"last_seq"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
}

// Outcome is what an attempt's end means. The closed set is part of the API.
type Outcome string

// The outcomes.
const (
	OutcomeSuccess     Outcome = "success"
	OutcomeFailed      Outcome = "failed"       // the agent or its task failed
	OutcomeRateLimited Outcome = "rate_limited" // the account rests; not the agent's fault
	OutcomeTransient   Outcome = "transient"    // overload, network: not the agent's fault
	OutcomeAuth        Outcome = "auth"         // the account's credentials were refused
	OutcomeTimeout     Outcome = "timeout"
	OutcomeCancelled   Outcome = "cancelled"
	OutcomeInterrupted Outcome = "interrupted"
)

// State is the final state that the outcome means when nothing is tried again.
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

// Result is a backend's full reading of an attempt.
type Result struct {
	Outcome     Outcome
	Reason      string    // one sentence for people; empty on plain success
	Text        string    // the agent's final answer, at most MaxResult bytes
	SessionID   string    // to resume with; empty if the CLI named none
	CLIVersion  string    // if the stream names it
	RetryAfter  time.Time // when a limit is said to lift; zero if unknown
	Class       Class     // whose doing it was; empty on success, and when somebody here ended it
	Limit       Limit     // what the output says about a limit; its Class is empty if it says nothing
	SessionGone bool      // it was to go on with a session that the CLI does not have: start afresh
	Usage       Usage
	DeniedTools []string // tools that the permission mode refused: "Bash: rm -rf x"
}
