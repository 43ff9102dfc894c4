package api

import (
	"time"

	"github.com/agented/agented"
)

// ExecutionView is an execution as the API shows it. Names stay; more may be
// added.
type ExecutionView struct {
	ID              agented.ExecutionID  `json:"id" doc:"Names the execution" example:"exec-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	TriggerID       *agented.TriggerID   `json:"trigger_id" nullable:"true" doc:"Trigger that it is a firing of; null for an ad-hoc execution"`
	TriggerName     string               `json:"trigger_name" doc:"The trigger's name when it fired; stays when the trigger goes"`
	Backend         string               `json:"backend" enum:"command,claude,codex,gemini,opencode,anthropic"`
	Status          agented.State        `json:"status" enum:"pending,running,success,failed,timeout,cancelled,interrupted"`
	Reason          string               `json:"reason" doc:"One sentence: why it waits, or why it ended so"`
	CancelRequested bool                 `json:"cancel_requested" doc:"Someone asked to cancel it; the attempt may still be ending"`
	Source          agented.Source       `json:"source" enum:"manual,schedule,webhook,github,retry"`
	Actor           string               `json:"actor" doc:"Who fired it, if known"`
	Cause           *agented.Origin      `json:"cause,omitempty" doc:"What fired it when nobody did by hand: the tick (schedule_id and due_at) or the delivery"`
	Chain           *agented.Chain       `json:"chain,omitempty" doc:"What it was caused by, when a message did; GET /api/v1/chains/{id} shows the whole"`
	CreatedAt       time.Time            `json:"created_at"`
	WaitingOn       string               `json:"waiting_on" doc:"What it is parked for: an account or a provider; empty: it is not parked"`
	ParkedUntil     *time.Time           `json:"parked_until" nullable:"true" doc:"When it goes on at the latest, if that is known"`
	Probes          agented.AccountID    `json:"probes,omitempty" doc:"The account that it only tries"`
	ScheduledAt     time.Time            `json:"scheduled_at" doc:"Not started before this time"`
	StartedAt       *time.Time           `json:"started_at" nullable:"true" doc:"Start of the first attempt"`
	FinishedAt      *time.Time           `json:"finished_at" nullable:"true"`
	DurationMS      *int64               `json:"duration_ms" nullable:"true" doc:"From the first attempt's start to the end"`
	ExitCode        *int                 `json:"exit_code" nullable:"true" doc:"Of the last attempt; null while none has ended or when a signal ended it"`
	ErrorMessage    string               `json:"error_message"`
	Result          *string              `json:"result,omitempty" doc:"The agent's final text; left out of lists and of the event stream"`
	Prompt          *string              `json:"prompt,omitempty" doc:"The prompt as rendered; left out of lists and of the event stream"`
	RetryOf         *agented.ExecutionID `json:"retry_of" nullable:"true" doc:"The execution that this one repeats"`
	AttemptNumber   int                  `json:"attempt_number" doc:"Number of the latest attempt; 0 before the first"`
	Attempts        []AttemptView        `json:"attempts"`
	LastSeq         agented.Seq          `json:"last_seq" doc:"Last line of the log; exact once the status is final"`
	Usage           *agented.Usage       `json:"usage" nullable:"true" doc:"What all attempts consumed; null if nothing is known"`
	Pinned          bool                 `json:"pinned" doc:"Retention leaves it alone"`
	Pause           *PauseView           `json:"pause,omitempty" doc:"How it stands still; left out: it does not"`
	Checkout        *CheckoutView        `json:"checkout,omitempty" doc:"The commit that it works in, if its trigger has a workspace; left out of lists"`
	LogRemovedAt    *time.Time           `json:"log_removed_at,omitempty" doc:"When retention took its log; left out while it is there"`
}

// AttemptView is one attempt as the API shows it.
type AttemptView struct {
	Number      int               `json:"number" doc:"From 1"`
	Backend     string            `json:"backend"`
	Account     agented.AccountID `json:"account" doc:"Account that it ran on; empty for command"`
	Model       string            `json:"model" doc:"As it was asked for; empty: the CLI's own choice"`
	CLIVersion  string            `json:"cli_version" doc:"What the CLI said of itself; empty for command"`
	Status      agented.State     `json:"status" enum:"running,success,failed,timeout,cancelled,interrupted"`
	Reason      string            `json:"reason"`
	ExitCode    *int              `json:"exit_code" nullable:"true"`
	Signal      string            `json:"signal" doc:"The signal that ended it, such as SIGKILL"`
	StartedAt   *time.Time        `json:"started_at" nullable:"true"`
	FinishedAt  *time.Time        `json:"finished_at" nullable:"true"`
	DurationMS  *int64            `json:"duration_ms" nullable:"true"`
	Usage       *agented.Usage    `json:"usage" nullable:"true"`
	SessionID   string            `json:"session_id" doc:"The CLI's own session, to resume it with"`
	Class       agented.Class     `json:"class" doc:"Whose doing its end was: account_limit, throttle, overload, auth, billing, network, agent_failure or interrupted; empty: it went well, or somebody here ended it"`
	Evidence    string            `json:"evidence" doc:"What the class was read from"`
	RetryAt     *time.Time        `json:"retry_at" nullable:"true" doc:"When the next attempt was planned for, if that was known"`
	ResumedFrom string            `json:"resumed_from" doc:"Session that it went on with; empty: it began afresh"`
}

// viewExecution turns an execution into what the API shows. The prompt and the
// result can be large: only the answer about a single execution has them
// (withText).
func viewExecution(e *agented.Execution, withText bool) ExecutionView {
	v := ExecutionView{
		ID: e.ID, TriggerName: e.TriggerName, Backend: e.Backend, Status: e.State, Reason: e.Reason,
		CancelRequested: e.CancelAsked && !e.State.Final(), Source: e.Source, Actor: e.Actor, Cause: e.Cause, Chain: viewChain(e.Chain),
		WaitingOn: e.WaitingOn, ParkedUntil: known(e.ParkedUntil), Probes: e.Probes,
		CreatedAt: shown(e.CreatedAt), ScheduledAt: shown(e.ScheduledAt),
		StartedAt: known(e.StartedAt), FinishedAt: known(e.FinishedAt), DurationMS: took(e.StartedAt, e.FinishedAt),
		ExitCode: e.ExitCode, ErrorMessage: e.Error, AttemptNumber: e.AttemptNo,
		Attempts: make([]AttemptView, len(e.Attempts)), LastSeq: e.LastSeq, Usage: usage(e.Usage),
	}
	v.Pause, v.Checkout = viewPause(e.Pause), viewCheckout(e.Checkout)
	v.Pinned, v.LogRemovedAt = !e.PinnedAt.IsZero(), known(e.LogRemovedAt)
	if e.Trigger != "" {
		v.TriggerID = &e.Trigger
	}
	if e.RetryOf != "" {
		v.RetryOf = &e.RetryOf
	}
	if withText {
		v.Result, v.Prompt = &e.Result, &e.Prompt
	}
	for i := range e.Attempts {
		a := &e.Attempts[i]
		v.Attempts[i] = AttemptView{
			Number: a.Number, Backend: a.Backend, Account: a.Account, Model: a.Model, CLIVersion: a.CLIVersion, Status: a.State,
			Reason: a.Reason, ExitCode: a.ExitCode, Signal: a.Signal, StartedAt: known(a.StartedAt),
			FinishedAt: known(a.FinishedAt), DurationMS: took(a.StartedAt, a.FinishedAt), Usage: usage(a.Usage),
			SessionID: a.SessionID, Class: a.Class, Evidence: a.Evidence, RetryAt: known(a.RetryAt), ResumedFrom: a.ResumedFrom,
		}
	}
	return v
}

// shown brings a time into the form that answers have: UTC, microseconds.
func shown(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// known is t as shown, nil when there is none.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = shown(t)
	return &t
}

// took is the time between two moments in milliseconds, nil when one is missing.
func took(from, to time.Time) *int64 {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	ms := to.Sub(from).Milliseconds()
	return &ms
}

func usage(u agented.Usage) *agented.Usage {
	if !u.Known() {
		return nil
	}
	return &u
}

// viewChain is nil for what began its chain.
func viewChain(c agented.Chain) *agented.Chain {
	if c.ID == "" {
		return nil
	}
	return &c
}
