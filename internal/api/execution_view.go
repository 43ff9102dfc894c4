package api

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/contract"
	"github.com/agented/agented/internal/redact"
)

// ExecutionView is an execution in responses. Names are stable; fields may be
// added.
type ExecutionView struct {
	ID              agented.ExecutionID  `json:"id" doc:"Execution id" example:"exec-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	TriggerID       *agented.TriggerID   `json:"trigger_id" nullable:"true" doc:"The trigger that it is a firing of; null for an ad-hoc execution"`
	TriggerName     string               `json:"trigger_name" doc:"Name of the trigger when it fired; remains when the trigger is deleted"`
	Backend         backendName          `json:"backend"`
	Status          agented.State        `json:"status" enum:"pending,running,success,failed,timeout,cancelled,interrupted"`
	Reason          string               `json:"reason" doc:"One sentence: why it is waiting, or why it ended"`
	CancelRequested bool                 `json:"cancel_requested" doc:"Cancellation was requested; the attempt may still be ending"`
	Source          agented.Source       `json:"source" enum:"manual,schedule,webhook,github,retry"`
	Actor           string               `json:"actor" doc:"Who fired it, if known"`
	Cause           *agented.Origin      `json:"cause,omitempty" doc:"What fired it, except for manual runs: the tick (schedule_id and due_at) or the delivery"`
	Chain           *agented.Chain       `json:"chain,omitempty" doc:"Chain of causes, if a message fired it; GET /api/v1/chains/{id} returns the whole chain"`
	CreatedAt       time.Time            `json:"created_at"`
	WaitingOn       string               `json:"waiting_on" doc:"The account or provider that a parked execution waits for; empty: not parked"`
	ParkedUntil     *time.Time           `json:"parked_until" nullable:"true" doc:"When it resumes at the latest, if known"`
	ProbeAccountID  agented.AccountID    `json:"probe_account_id,omitempty" doc:"The account that it probes"`
	ScheduledAt     time.Time            `json:"scheduled_at" doc:"Earliest start"`
	StartedAt       *time.Time           `json:"started_at" nullable:"true" doc:"Start of the first attempt"`
	FinishedAt      *time.Time           `json:"finished_at" nullable:"true"`
	DurationMS      *int64               `json:"duration_ms" nullable:"true" doc:"From the start of the first attempt to the end"`
	ExitCode        *int                 `json:"exit_code" nullable:"true" doc:"Exit code of the last attempt; null until one has ended, or if a signal ended it"`
	ErrorMessage    string               `json:"error_message"`
	Result          *string              `json:"result,omitempty" doc:"The agent's final text; omitted in lists and in the event stream"`
	Prompt          *string              `json:"prompt,omitempty" doc:"The prompt as rendered; omitted in lists and in the event stream"`
	RetryOf         *agented.ExecutionID `json:"retry_of" nullable:"true" doc:"The execution of which this is a retry"`
	AttemptNumber   int                  `json:"attempt_number" doc:"Number of the latest attempt; 0 before the first"`
	Attempts        []AttemptView        `json:"attempts"`
	LastSeq         agented.Seq          `json:"last_seq" doc:"Number of the last log line; exact once the status is final"`
	Usage           *agented.Usage       `json:"usage" nullable:"true" doc:"Usage of all attempts; null if unknown"`
	Pinned          bool                 `json:"pinned" doc:"Excluded from retention"`
	Pause           *PauseView           `json:"pause,omitempty" doc:"The current pause; omitted if it is not paused"`
	Changes         *ChangesSummary      `json:"changes,omitempty" doc:"What its latest attempt with changes changed; GET /api/v1/executions/{id}/changes returns the files"`
	Publications    []PublicationSummary `json:"publications,omitempty" doc:"What it publishes; GET /api/v1/executions/{id}/publications returns the texts"`
	Contract        string               `json:"contract,omitempty" enum:"met,not_met" doc:"Whether the latest attempt with an evaluation met the outcome contract; omitted: there is none, or no attempt has come so far"`
	Output          json.RawMessage      `json:"output,omitempty" doc:"The result as JSON, if its outcome contract has a result_schema and the result matches it. In lists and in the event stream only up to 4 KiB"`
	Checkout        *CheckoutView        `json:"checkout,omitempty" doc:"The commit that it works on, if its trigger has a workspace; omitted in lists"`
	RetryRole       agented.Role         `json:"retry_role,omitempty" enum:"operator,admin" doc:"The role required to retry it; only in the response for one execution that has ended"`
	RetryNote       string               `json:"retry_note,omitempty" doc:"Why only an admin may retry it"`
	LogRemovedAt    *time.Time           `json:"log_removed_at,omitempty" doc:"When retention removed its log; omitted while the log exists"`
}

// AttemptView is an attempt in responses.
type AttemptView struct {
	Number      int                `json:"number" doc:"Attempt number, from 1"`
	Backend     string             `json:"backend"`
	Account     agented.AccountID  `json:"account" doc:"Account that it used; empty for command"`
	Model       string             `json:"model" doc:"Requested model; empty: the CLI's default"`
	CLIVersion  string             `json:"cli_version" doc:"Version reported by the CLI; empty for command"`
	Sandbox     agented.Sandbox    `json:"sandbox" doc:"Sandbox level that it ran at, off, guard or strict; empty: it has not started, or a version without sandboxes ran it"`
	BoxReason   string             `json:"sandbox_reason" doc:"Why it ran at that level"`
	Broker      *agented.BrokerUse `json:"broker,omitempty" doc:"What its broker did; omitted: it has not ended, or it had none"`
	Status      agented.State      `json:"status" enum:"running,success,failed,timeout,cancelled,interrupted"`
	Reason      string             `json:"reason"`
	ExitCode    *int               `json:"exit_code" nullable:"true"`
	Signal      string             `json:"signal" doc:"The signal that ended it, such as SIGKILL"`
	StartedAt   *time.Time         `json:"started_at" nullable:"true"`
	FinishedAt  *time.Time         `json:"finished_at" nullable:"true"`
	DurationMS  *int64             `json:"duration_ms" nullable:"true"`
	Usage       *agented.Usage     `json:"usage" nullable:"true"`
	SessionID   string             `json:"session_id" doc:"Session id of the CLI, for resuming"`
	Class       agented.Class      `json:"class" doc:"Who is responsible for its end: account_limit, throttle, overload, auth, billing, network, agent_failure, no_effect or interrupted; empty: it succeeded, or Agented or a user ended it"`
	Evidence    string             `json:"evidence" doc:"Output from which class was derived"`
	RetryAt     *time.Time         `json:"retry_at" nullable:"true" doc:"Planned time of the next attempt, if known"`
	ResumedFrom string             `json:"resumed_from" doc:"Session that it resumed; empty: it started a new one"`
	Contract    string             `json:"contract,omitempty" enum:"met,not_met" doc:"Whether it met the outcome contract; omitted: there is none, or it was not evaluated"`
	Clauses     []agented.Clause   `json:"clauses,omitempty" doc:"Evaluation of the clauses of the outcome contract; omitted in lists and in the event stream"`
}

// ChangesSummary counts what an attempt changed.
type ChangesSummary struct {
	Attempt   int    `json:"attempt"`
	Base      string `json:"base" doc:"Commit that was checked out at the start; empty: none"`
	Head      string `json:"head" doc:"Commit at the end"`
	Commits   int    `json:"commits"`
	Files     int    `json:"files"`
	Added     int    `json:"added" doc:"Added lines"`
	Removed   int    `json:"removed" doc:"Removed lines"`
	Artifacts int    `json:"artifacts" doc:"Files that it left in the folder artifacts of AGENTED_OUT"`
	Truncated bool   `json:"truncated" doc:"A part was not recorded"`
	Reason    string `json:"reason" doc:"Why it is truncated, or could not be recorded"`
}

// PublicationSummary is a publication of an execution, in short.
type PublicationSummary struct {
	Number     int                       `json:"number" doc:"From 1, within the execution"`
	Kind       agented.PublicationKind   `json:"kind" doc:"What is written, such as pull_request or comment"`
	Status     agented.PublicationStatus `json:"status" enum:"pending,held,published,superseded,refused,failed,rejected"`
	Repository string                    `json:"repository" doc:"owner/name"`
	Title      string                    `json:"title"`
	Rule       string                    `json:"rule,omitempty" doc:"The rule that refused it"`
	Reason     string                    `json:"reason" doc:"Why it has its status, or waits"`
	URL        string                    `json:"url,omitempty" doc:"Address of what was written"`
}

func viewPublications(list []agented.Publication) []PublicationSummary {
	var out []PublicationSummary
	for _, p := range list {
		out = append(out, PublicationSummary{
			Number: p.Number, Kind: p.Kind, Status: p.Status, Repository: p.Repository, Title: p.Title, Rule: p.Rule, Reason: p.Reason, URL: p.URL,
		})
	}
	return out
}

func viewChanges(c *agented.Changes) *ChangesSummary {
	if c == nil {
		return nil
	}
	return &ChangesSummary{
		Attempt: c.Attempt, Base: c.Base, Head: c.Head, Commits: c.Commits, Files: c.Files, Added: c.Added, Removed: c.Removed,
		Artifacts: c.Artifacts, Truncated: c.Truncated, Reason: c.Reason,
	}
}

// viewExecution converts an execution for a response. The prompt and the result
// can be large and are included only if withText is set.
func viewExecution(e *agented.Execution, withText bool) ExecutionView {
	v := ExecutionView{
		ID: e.ID, TriggerName: e.TriggerName, Backend: backendName(e.Backend), Status: e.State, Reason: e.Reason,
		CancelRequested: e.CancelAsked && !e.State.Final(), Source: e.Source, Actor: e.Actor, Cause: e.Cause, Chain: viewChain(e.Chain),
		WaitingOn: e.WaitingOn, ParkedUntil: rest.OptionalTime(e.ParkedUntil), ProbeAccountID: e.ProbeAccount,
		CreatedAt: rest.Time(e.CreatedAt), ScheduledAt: rest.Time(e.ScheduledAt),
		StartedAt: rest.OptionalTime(e.StartedAt), FinishedAt: rest.OptionalTime(e.FinishedAt), DurationMS: durationMS(e.StartedAt, e.FinishedAt),
		ExitCode: e.ExitCode, ErrorMessage: e.Error, AttemptNumber: e.AttemptNo,
		Attempts: make([]AttemptView, len(e.Attempts)), LastSeq: e.LastSeq, Usage: usage(e.Usage),
	}
	v.Pause, v.Checkout, v.Changes = viewPause(e.Pause), viewCheckout(e.Checkout), viewChanges(e.Changes())
	v.Publications = viewPublications(e.Publications)
	v.Output = e.Output()
	v.Pinned, v.LogRemovedAt = !e.PinnedAt.IsZero(), rest.OptionalTime(e.LogRemovedAt)
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
			Number: a.Number, Backend: a.Backend, Account: a.Account, Model: a.Model, CLIVersion: a.CLIVersion, Sandbox: a.Sandbox.Level, BoxReason: a.Sandbox.Reason, Broker: a.Broker, Status: a.State,
			Reason: a.Reason, ExitCode: a.ExitCode, Signal: a.Signal, StartedAt: rest.OptionalTime(a.StartedAt),
			FinishedAt: rest.OptionalTime(a.FinishedAt), DurationMS: durationMS(a.StartedAt, a.FinishedAt), Usage: usage(a.Usage),
			SessionID: a.SessionID, Class: a.Class, Evidence: a.Evidence, RetryAt: rest.OptionalTime(a.RetryAt), ResumedFrom: a.ResumedFrom,
		}
		if c := a.Contract; c != nil {
			v.Contract = contractView(c)
			v.Attempts[i].Contract = v.Contract
			if withText {
				v.Attempts[i].Clauses = c.Clauses
			}
		}
	}
	return v
}

// showExecution converts an execution for a response and masks secrets in the
// output of the agent or its CLI.
func showExecution(m *redact.Masker, e *agented.Execution, withText bool) ExecutionView {
	v := viewExecution(e, withText)
	v.Reason, v.ErrorMessage = m.MaskString(v.Reason), m.MaskString(v.ErrorMessage)
	for _, text := range []**string{&v.Prompt, &v.Result} {
		if *text != nil {
			masked := m.MaskString(**text) // e must not be modified
			*text = &masked
		}
	}
	for i := range v.Attempts {
		a := &v.Attempts[i]
		a.Reason = m.MaskString(a.Reason)
		a.Clauses = slices.Clone(a.Clauses)
		for j := range a.Clauses {
			c := &a.Clauses[j]
			c.Text, c.Evidence = m.MaskString(c.Text), m.MaskString(c.Evidence)
		}
	}
	if len(v.Output) > 0 {
		v.Output, _ = contract.Mask(m, v.Output)
	}
	return v
}

func contractView(c *agented.Contract) string {
	if c.Met {
		return "met"
	}
	return "not_met"
}

// CheckoutView is the checkout of an execution.
type CheckoutView struct {
	Repository string    `json:"repository"`
	Ref        string    `json:"ref" doc:"Requested ref; empty: the default branch"`
	Commit     string    `json:"commit"`
	At         time.Time `json:"checked_out_at"`
}

func viewCheckout(c *agented.Checkout) *CheckoutView {
	if c == nil {
		return nil
	}
	return &CheckoutView{Repository: c.Repository, Ref: c.Ref, Commit: c.Commit, At: rest.Time(c.At)}
}

// durationMS returns the time between two instants in milliseconds, or nil if one is
// zero.
func durationMS(from, to time.Time) *int64 {
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

// viewChain returns nil for an object that began its chain.
func viewChain(c agented.Chain) *agented.Chain {
	if c.ID == "" {
		return nil
	}
	return &c
}

// EncodeExecution appends an execution as in the stream of all executions:
// without prompt and result. It is the hub's Options.Encode.
func EncodeExecution(dst []byte, e *agented.Execution) []byte {
	b, err := json.Marshal(viewExecution(e, false))
	if err != nil {
		// Only a number that JSON cannot represent fails: no cost is infinite.
		return append(dst, "{}"...)
	}
	return append(dst, b...)
}
