package agentcli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Limits of a reader's memory.
const (
	maxReason   = 600 // bytes of a reason
	maxQuote    = 400 // bytes of a CLI's message in it
	maxDenied   = 50  // denied tools kept; further ones are counted
	maxDeniedAt = 200 // bytes of each
)

// MaxID is the maximum size of an id, a version or an error type that is kept, in bytes.
const MaxID = 200

// MaxLine is the maximum size of a line that is reassembled from parts for a reader, in bytes.
// An agent's answer of 5 MB is one line. A longer line reaches the reader truncated; the log
// contains all of it.
const MaxLine = 64 << 20

// MaxMessage is the maximum size of an error message that is kept, in bytes.
const MaxMessage = 4 << 10

// reading is the state of a reader.
type reading struct {
	rules      *Rules
	good       bool // the CLI reported a complete, successful end of its turn
	outcome    agented.Outcome
	reason     string
	text       string
	session    string
	version    string
	retryAfter time.Time
	class      agented.Class
	limit      agented.Limit
	window     string    // limit window, if a field of the output names it
	waiting    *Failure  // last announced retry; nil after progress
	now        time.Time // when the output ended, in the zone of the CLI's clock times
	local      bool      // the exit code indicates the machine or the configuration
	over       bool      // it stopped at its budget
	gone       bool      // the session to resume does not exist
	output     []byte    // structured result
	pending    []string  // background tasks that had not ended
	usage      agented.Usage
	denied     denials
}

// result converts the reading to a Result.
func (r *reading) result() agented.Result {
	out := agented.Result{
		Outcome: r.outcome, Text: clipText(r.text), SessionID: Clip(r.session, MaxID), CLIVersion: Clip(r.version, MaxID),
		RetryAfter: r.retryAfter, Class: r.class, Limit: r.limit, SessionGone: r.gone, OverBudget: r.over, Usage: r.usage, DeniedTools: r.denied.list(), Output: r.output, Pending: r.pending,
	}
	reasons := []string{r.reason}
	if d := r.denied.sentence(r.rules.Subject); d != "" {
		reasons = append(reasons, d)
	}
	out.Reason = Clip(OneLine(strings.Trim(strings.Join(reasons, "; "), "; ")), maxReason)
	return out
}

// ended returns the result of an attempt that did not end by itself. The cause takes precedence
// over the output, because a CLI may exit with code 0 after SIGTERM. An earlier result is kept
// and mentioned.
func (r *reading) ended(exit agented.Exit) agented.Result {
	why := strings.TrimRight(OneLine(exit.Detail), ".; ")
	say := func(fallback string) string {
		if why != "" {
			return why
		}
		return fallback
	}
	switch exit.Cause {
	case agented.CauseTimeout:
		r.outcome, r.reason = agented.OutcomeTimeout, say("stopped at its timeout")
	case agented.CauseSilence:
		r.outcome, r.reason = agented.OutcomeTimeout, say("stopped because it printed nothing for too long")
	case agented.CauseStalled:
		r.stalled()
	case agented.CauseStopped:
		r.failed()
		r.reason = say("stopped by a signal repeatedly")
	case agented.CauseCancelled:
		r.outcome, r.reason = agented.OutcomeCancelled, say("cancelled")
	case agented.CauseOutputCap:
		r.failed()
		r.reason = say("stopped because it printed more than allowed")
	case agented.CauseDiskLimit:
		r.failed()
		r.reason = say("stopped because its files used more space than its limit")
	case agented.CauseDiskFull:
		r.outcome, r.reason = agented.OutcomeTransient, say("stopped because the disk is full and its log could not be written")
	case agented.CauseNoStart:
		r.failed()
		r.reason = say("could not be started")
	case agented.CauseShutdown:
		r.class, r.outcome = agented.ClassInterrupted, agented.OutcomeInterrupted
		r.reason = say("interrupted because the machine was shut down")
	default:
		r.class, r.outcome = agented.ClassInterrupted, agented.OutcomeInterrupted
		r.reason = say("interrupted: its shim was lost, so its end was not observed")
	}
	if r.good {
		r.reason += "; " + r.rules.Subject + " had already returned its result, which is kept"
	}
	return r.result()
}

// stalled classifies an attempt that was stopped because it stalled, by what it waited on.
func (r *reading) stalled() {
	f := Failure{Kind: "network", Message: "it printed nothing while it waited for the model"}
	if r.waiting != nil {
		f = *r.waiting
	}
	if f.Ours = ""; f.Message == "" {
		f.Message = f.Kind
	}
	r.fail(f)
	if r.class == agented.ClassAgentFailure {
		r.class, r.outcome = agented.ClassNetwork, agented.OutcomeTransient
		r.limit = agented.Limit{Class: r.class, Evidence: Clip(OneLine(f.Message), agented.MaxEvidence)}
		r.reason = quoting(r.rules.Subject+" "+sentenceOf(r.limit, r.class), f.Message)
	}
	r.reason += "; it made no progress, so it was stopped to release its slot"
}

// printedAt returns when the CLI printed its last output, in the zone of its clock, because the
// end may be read much later.
func printedAt(exit agented.Exit, now time.Time) time.Time {
	if exit.FinishedAt.IsZero() {
		return now
	}
	return exit.FinishedAt.In(now.Location())
}

// howItEnded describes the exit of a process.
func howItEnded(exit agented.Exit) string {
	switch {
	case byItself(exit) && exit.Detail != "":
		return "ended: " + Clip(OneLine(exit.Detail), maxQuote)
	case exit.Signal == "SIGKILL":
		return "ended by SIGKILL, which Agented did not send: the machine may have run out of memory"
	case exit.Signal != "":
		return "ended by " + Clip(OneLine(exit.Signal), 40)
	case exit.Code == nil:
		return "ended in an unknown way"
	}
	switch code := *exit.Code; code {
	case 126:
		return "exited with code 126 (the program is not executable)"
	case 127:
		return "exited with code 127 (a program was not found)"
	default:
		return fmt.Sprintf("exited with code %d", code)
	}
}

// cleanExit reports whether the process ended by itself with code 0.
func cleanExit(exit agented.Exit) bool {
	return (exit.Cause == agented.CauseExit || exit.Cause == "") && exit.Signal == "" && exit.Code != nil && *exit.Code == 0
}

// byItself reports whether the process ended without a stop by Agented.
func byItself(exit agented.Exit) bool { return exit.Cause == agented.CauseExit || exit.Cause == "" }

// answer collects a text from pieces and keeps its start.
type answer struct{ b []byte }

func (a *answer) reset() { a.b = a.b[:0] }

func (a *answer) add(s string) {
	// One byte more than is kept, so that clipText detects the truncation.
	if room := agented.MaxResult + 1 - len(a.b); len(s) > room {
		s = s[:max(room, 0)]
	}
	a.b = append(a.b, s...)
}

func (a *answer) text() string { return string(a.b) }

// denials counts the tool calls that a permission mode denied.
type denials struct {
	kept  []string
	ids   []string // tool call ids of kept, to count each once
	more  int
	calls []toolCall // the last calls, to describe a denied one
}

type toolCall struct{ id, tool, what string }

// remember stores the description of a call, in case it is denied.
func (d *denials) remember(id, tool, what string) {
	if len(d.calls) == maxDenied {
		d.calls = append(d.calls[:0], d.calls[1:]...)
	}
	d.calls = append(d.calls, toolCall{Clip(id, MaxID), Clip(tool, maxDeniedAt), Clip(what, maxDeniedAt)})
}

// tool returns the tool of a remembered call, or "".
func (d *denials) tool(id string) string {
	for _, call := range slices.Backward(d.calls) {
		if call.id == Clip(id, MaxID) {
			return call.tool
		}
	}
	return ""
}

// add counts one denied call. A known id is not counted again.
func (d *denials) add(id, tool, what string) {
	id = Clip(id, MaxID)
	if id != "" && slices.Contains(d.ids, id) {
		return
	}
	for _, call := range d.calls {
		if what == "" && id != "" && call.id == id {
			what = call.what
		}
	}
	if len(d.kept) >= maxDenied {
		d.more++
		return
	}
	tool = OneLine(tool)
	if tool == "" {
		tool = "a tool"
	}
	if what = OneLine(what); what != "" {
		tool += ": " + what
	}
	d.kept = append(d.kept, Clip(tool, maxDeniedAt))
	d.ids = append(d.ids, id)
}

func (d *denials) list() []string {
	if d.more == 0 {
		return d.kept
	}
	return append(d.kept[:len(d.kept):len(d.kept)], fmt.Sprintf("and %d more", d.more))
}

// sentence reports denied tools, to distinguish a success without the work from one with it.
func (d *denials) sentence(program string) string {
	switch n := len(d.kept) + d.more; n {
	case 0:
		return ""
	case 1:
		return "the permission mode denied " + program + " a tool (" + Clip(d.kept[0], 100) + ")"
	default:
		return fmt.Sprintf("the permission mode denied %s %d tool calls (first: %s)", program, n, Clip(d.kept[0], 100))
	}
}

// said keeps the first and the last lines outside of a CLI's protocol, which contain errors that
// occur before the CLI starts its protocol.
type said struct{ first, last []string }

const (
	saidFirst = 5
	saidLast  = 20
)

func (s *said) add(content []byte) {
	if len(content) > 3*maxQuote {
		content = content[:3*maxQuote] // OneLine processes only the start of a long line
	}
	line := OneLine(firstBytes(string(content), 2*maxQuote))
	switch {
	case line == "":
	case len(s.first) < saidFirst:
		s.first = append(s.first, line)
	default:
		if len(s.last) == saidLast {
			s.last = append(s.last[:0], s.last[1:]...)
		}
		s.last = append(s.last, line)
	}
}

// find returns the last line for which pick returns true.
func (s *said) find(pick func(string) bool) string {
	for _, lines := range [][]string{s.last, s.first} {
		for i := len(lines) - 1; i >= 0; i-- {
			if pick(lines[i]) {
				return lines[i]
			}
		}
	}
	return ""
}

// commandTail is how much of the end of a command's standard output becomes its result, in bytes.
const commandTail = 4 << 10

// tail keeps the last bytes of a text, in whole lines where possible.
type tail struct{ b []byte }

func (t *tail) add(line []byte) {
	t.b = append(t.b, lastBytes(line, commandTail)...)
	t.b = append(t.b, '\n')
	if len(t.b) > 4*commandTail {
		t.b = append(t.b[:0], lastBytes(t.b, commandTail+1)...)
	}
}

func (t *tail) text() string {
	b := bytes.TrimRight(t.b, "\r\n")
	if len(b) > commandTail {
		b = lastBytes(b, commandTail)
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(b)
}
