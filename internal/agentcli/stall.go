package agentcli

import (
	"bytes"
	"slices"
	"time"

	"github.com/agented/agented"
)

// How long a CLI may wait until its attempt is stopped to release the slot.
const (
	// retryPatience is for a CLI that announced a retry and has made no progress since. The CLIs'
	// own retries take at most four minutes.
	retryPatience = 5 * time.Minute
	// QuietPatience is for a CLI that waits for the model and prints nothing: it may be thinking,
	// or the connection may be dead.
	QuietPatience = 30 * time.Minute
	// ToolPatience is for a CLI that prints nothing while a tool runs. The start of the tool was
	// printed, but its end may be lost.
	ToolPatience = 6 * time.Hour
	// ResultGrace is how long a CLI may run after it has printed its final result, and
	// taskPatience how long while an announced background task runs.
	ResultGrace  = time.Minute
	taskPatience = 30 * time.Minute
)

// StallDetector is the stall detector: it distinguishes a working CLI from one that waits on a limit, an
// overload or a network without end. Codex sleeps for as long as the API requests, and waits for
// a network without a timeout. StallDetector has no side effects, and its state can be rebuilt from the
// attempt's log at any time.
type StallDetector struct {
	rules *StallRules
	moved time.Time // time of the last progress
	since time.Time // time of the first announced retry after moved
	retry *Failure  // its reason; nil if none was announced
	tools []string  // ids of running tools
	waits bool      // it waits for the model and for nothing else
	got   bool      // the current line shows progress

	result time.Time // time of the final result; zero if there is none, or the CLI has continued since
	final  bool      // the current line is the final result
	tasks  []string  // ids of running background tasks
}

// Stall describes what a stalled CLI waits on.
type Stall struct {
	Class agented.Class
	Why   string // one sentence: its last message, or that it printed nothing
}

// NewStallDetector returns the stall detector for an attempt that began at the given time. It is
// nil for a program without a protocol, because what it waits for is unknown.
func NewStallDetector(cli CLI, began time.Time) *StallDetector {
	rules := cli.Rules().Stall
	if rules == nil {
		return nil
	}
	return &StallDetector{rules: rules, moved: began, waits: true}
}

// Add processes the events of one whole line that was printed at the given time.
func (p *StallDetector) Add(at time.Time, events []Event) {
	p.got, p.final = false, false
	was := p.retry
	for i := range events {
		p.add(&events[i])
	}
	if p.final {
		p.result, p.tools = at, nil
	}
	switch {
	case p.got:
		p.moved, p.retry = at, nil
	case p.retry != nil && was == nil:
		p.since = at
	}
}

func (p *StallDetector) add(e *Event) {
	switch id := Clip(e.ID, MaxID); {
	case e.Kind == KindTask && e.Has(Opens):
		if !slices.Contains(p.tasks, id) && len(p.tasks) < 100 {
			p.tasks = append(p.tasks, id)
		}
	case e.Kind == KindTask && e.Has(Closes):
		p.tasks = slices.DeleteFunc(p.tasks, func(s string) bool { return s == id })
	case e.Has(Opens):
		p.started(e.ID)
	case e.Has(Closes):
		p.ended(e.ID)
	}
	if e.Has(Resumes) {
		p.result, p.final = time.Time{}, false
	}
	switch {
	case e.Kind == KindRetry:
		f := *e.Error
		if f.Message = Clip(f.Message, MaxMessage); f.Ours != "" {
			f.Message = "it retries after an error of the model's API: " + f.Kind
		}
		p.retry = &f
	case e.Kind == KindResult:
		p.got, p.waits, p.final = true, false, true
	case !e.Has(Idle):
		p.got, p.waits = true, !p.rules.LateTools || e.Kind == KindStep
	}
}

// Skip records that lines up to the given time were skipped, because they were too many or too
// long.
func (p *StallDetector) Skip(at time.Time) {
	p.moved, p.retry, p.tools, p.waits = at, nil, nil, false
}

// LongLine processes the first bytes of a line that is too long.
func (p *StallDetector) LongLine(at time.Time, stream agented.Stream, head []byte) {
	p.Skip(at)
	if mark := p.rules.ResultMark; stream == agented.Stdout && mark != "" && bytes.Contains(head, []byte(mark)) {
		p.result = at
	}
}

// ExcludeUntil excludes the time until the given one, during which the CLI was paused.
func (p *StallDetector) ExcludeUntil(until time.Time) {
	p.moved, p.since = until, until
	if !p.result.IsZero() {
		p.result = until
	}
}

// Finished reports whether the CLI has printed its final result and still runs although it has
// nothing left to do.
func (p *StallDetector) Finished(now time.Time) bool {
	due := p.FinishedBy()
	return !due.IsZero() && !now.Before(due)
}

// FinishedBy returns when Finished becomes true if nothing more is printed; it is zero if there
// is no final result.
func (p *StallDetector) FinishedBy() time.Time {
	if p.result.IsZero() {
		return time.Time{}
	}
	due := p.result.Add(taskPatience)
	if soon := p.moved.Add(ResultGrace); len(p.tasks) == 0 && soon.Before(due) {
		due = soon
	}
	return due
}

// Stalled reports whether the CLI is stalled.
func (p *StallDetector) Stalled(now time.Time) (Stall, bool) {
	switch {
	case !p.result.IsZero():
		return Stall{}, false // see Finished
	case len(p.tools) > 0 && (p.rules.Tool == 0 || now.Sub(p.moved) < p.rules.Tool):
		return Stall{}, false // the trigger's timeouts limit a tool
	case len(p.tools) > 0:
		return Stall{agented.ClassNetwork, "it printed nothing for " + p.rules.Tool.String() + " while a tool was running"}, true
	case p.retry != nil && now.Sub(p.since) >= retryPatience:
		class := p.retry.Class()
		if class == agented.ClassAgentFailure {
			class = agented.ClassNetwork
		}
		return Stall{class, OneLine(Clip(inner(p.retry.Message), maxQuote))}, true
	case p.retry == nil && p.waits && p.rules.Quiet > 0 && now.Sub(p.moved) >= p.rules.Quiet:
		return Stall{agented.ClassNetwork, "it printed nothing for " + p.rules.Quiet.String() + " while it waited for the model"}, true
	}
	return Stall{}, false
}

// started and ended record the start and the end of a tool. More than a hundred concurrent ones
// are not counted.
func (p *StallDetector) started(id string) {
	if id = Clip(id, MaxID); !slices.Contains(p.tools, id) && len(p.tools) < 100 {
		p.tools = append(p.tools, id)
	}
}

func (p *StallDetector) ended(id string) {
	id = Clip(id, MaxID)
	p.tools = slices.DeleteFunc(p.tools, func(s string) bool { return s == id })
}
