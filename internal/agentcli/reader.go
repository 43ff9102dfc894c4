package agentcli

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Reader derives the result of one attempt from its events. Its memory is bounded however much the
// CLI prints.
type Reader struct {
	read   reading
	final  answer
	other  said // lines outside of the protocol
	log    said // lines of the CLI's own log
	tail   tail // end of the output, if it is plain text
	worked bool // a tool has done something

	bad     *Failure // of the turn
	last    *Failure // last error that may not be the end
	warned  string   // its message
	code    string   // the CLI's name of the API error in the last answer of the model
	headers map[string]string
	resets  float64 // epoch of the last limit that rejected a request
	window  string  // and the limit window that it names
	asked   string  // tool that was denied according to a line outside of the protocol
	step    string  // why the last step ended

	results results
	ended   bool   // there was a result
	fresh   bool   // the model answered after the last result
	ignored bool   // an empty error after a successful result was ignored
	extra   string // its text
	over    bool   // the last result reports that the budget is used up
	tasks   []task // background tasks that run
}

// NewReader returns a reader for the output of one attempt.
func NewReader(cli CLI) *Reader { return &Reader{read: reading{rules: cli.Rules()}} }

// Add processes the events of one line. The reader does not keep the line after it returns.
func (r *Reader) Add(events []Event) {
	for i := range events {
		r.add(&events[i])
	}
}

func (r *Reader) add(e *Event) {
	switch {
	case e.Kind == KindText && !r.read.rules.Protocol:
		r.tail.add(e.Line)
		return
	case e.Kind == KindText:
		r.other.add(e.Line)
		return
	case e.Kind == KindLog:
		r.log.add(e.Line)
		return
	case e.Has(Untyped):
		return
	}
	if e.Session != "" {
		r.read.session = Clip(e.Session, MaxID)
	}
	if e.Version != "" {
		r.read.version = Clip(e.Version, MaxID)
	}
	if e.Has(Recovered) && e.Kind != KindResult {
		r.read.waiting = nil
	}
	if e.Has(Restarts) && e.Kind != KindResult {
		r.final.reset()
	}
	switch e.Kind {
	case KindMessage:
		if e.Role == "assistant" && !e.SubAgent && e.APIError == "" {
			r.final.add(e.Text)
		}
	case KindToolCall, KindToolResult:
		r.tool(e)
	case KindDenied:
		if e.Has(Fallback) {
			r.asked = Clip(e.Tool, maxDeniedAt)
		} else {
			r.read.denied.add(e.ID, e.Tool, e.Summary)
		}
	case KindLimit:
		if e.Status == "rejected" {
			r.resets, r.window = e.ResetsAt, windowOf(e.Window)
		}
	case KindTurn:
		r.bad, r.read.good = nil, false
	case KindStepStarted:
		r.read.good, r.step = false, ""
	case KindUsage:
		r.usage(e)
	case KindRetry, KindError:
		r.failing(e)
	case KindStep:
		r.bad, r.read.good, r.step = nil, false, Clip(e.Reason, 60)
	case KindResult:
		r.end(e)
	case KindTask:
		r.task(e)
	case KindUnknown:
		r.worked = r.worked || e.Has(Works)
	}
}

// task is a background task.
type task struct{ id, text string }

// maxTasks bounds the background tasks that a reader knows.
const maxTasks = 50

// task notes the start or the end of a background task.
func (r *Reader) task(e *Event) {
	id := Clip(e.ID, MaxID)
	r.tasks = slices.DeleteFunc(r.tasks, func(t task) bool { return t.id == id })
	if e.Has(Opens) && len(r.tasks) < maxTasks {
		r.tasks = append(r.tasks, task{id, Clip(OneLine(cmp.Or(e.Detail, id)), 100)})
	}
}

func (r *Reader) tool(e *Event) {
	switch {
	case e.Kind == KindToolCall && (e.Tool != "" || e.Has(Works)) && !e.Remote:
		r.read.denied.remember(e.ID, e.Tool, InputText(e.Input))
	case e.Kind == KindToolResult && e.Has(Withheld):
		name := r.read.denied.tool(e.ID)
		if e.Refused || slices.Contains(r.read.rules.Withholdable, name) {
			r.read.denied.add(e.ID, name, "")
			return
		}
	}
	r.worked = r.worked || e.Has(Works)
}

// usage processes an answer of the model.
func (r *Reader) usage(e *Event) {
	if e.Has(Final) {
		r.results.addStep(e)
		r.read.usage = r.results.usage
		return
	}
	r.fresh, r.code = true, Clip(e.APIError, MaxID)
}

// failing processes an error that may not be the end.
func (r *Reader) failing(e *Event) {
	f := *e.Error
	switch {
	case e.Kind == KindRetry:
		r.read.waiting = &f
		if e.Has(Final) {
			r.last = &f
		}
	case e.Has(Final):
		r.bad, r.read.good, r.headers = &f, false, e.Headers
	default:
		r.warned = f.Message
	}
}

// end processes a result. A run has several if a background task wakes the agent after the end of
// its turn. Their costs are added up. The last one decides, unless it is an error without any work.
func (r *Reader) end(e *Event) {
	used := r.results.add(e)
	if e.Usage != nil {
		r.read.usage = r.results.usage
	}
	if r.ended && r.read.good && e.Failed && !used && !r.fresh && e.Has(Empty) {
		r.ignored, r.extra = true, Clip(strings.Join(e.Parts, "; "), maxQuote)
		return
	}
	again := r.ended && r.read.good
	if e.Has(Recovered) {
		r.read.waiting = nil
	}
	r.ended, r.bad, r.fresh, r.ignored = true, nil, false, false
	r.read.good = !e.Failed
	r.over = e.Has(OverBudget)
	r.read.output = nil
	if !e.Failed {
		r.read.output = bytes.Clone(e.Output)
	}
	switch {
	case e.Failed:
		f := *e.Error
		if f.Own && r.code == "" {
			f.Plain = r.read.rules.apiForms()
		}
		if f.Answer {
			f.Kind = r.code + " " + f.Kind
		}
		if f.Message == "" && f.Ours == "" {
			f.Message = r.warned
		}
		r.bad = &f
	default:
		r.last = nil
		if e.Has(Restarts) && (e.Text != "" || !again) {
			r.final.reset()
			r.final.add(e.Text)
		}
	}
}

// Result classifies the attempt. Call it once, after the last line. Clock times without a zone in
// the output are interpreted in the zone of now.
func (r *Reader) Result(exit agented.Exit, now time.Time) agented.Result {
	read := &r.read
	if !read.rules.Protocol {
		return r.plainResult(exit)
	}
	read.now = printedAt(exit, now)
	read.text = r.final.text()
	for _, t := range r.tasks {
		read.pending = append(read.pending, t.text)
	}
	if r.resets > 0 {
		read.retryAfter, read.window = epochTime(r.resets, read.now), r.window
	}
	if len(read.denied.kept) == 0 && r.asked != "" {
		read.denied.add("", r.asked, "")
	}
	if !byItself(exit) {
		return read.ended(exit)
	}
	if r.ignored {
		// The exit code repeats the empty error.
		if exit.Signal == "" && exit.Code != nil && *exit.Code == 1 {
			zero := 0
			exit.Code = &zero
		}
		read.reason = quoting(read.rules.Subject+" reported an error after its result, without further work", r.extra)
	}
	read.over = r.over
	complaint := r.other.complaint(read.rules)
	if complaint == "" {
		complaint = r.log.complaint(read.rules)
	}
	return read.finish(exit, r.failure(exit, complaint), r.worked, complaint)
}

// failure returns the error that decides, or nil.
func (r *Reader) failure(exit agented.Exit, complaint string) *Failure {
	read, bad := &r.read, r.bad
	switch {
	case bad != nil || read.good:
	case r.last != nil:
		bad = r.last
	case read.waiting != nil && read.waiting.Ours != "":
		bad = read.waiting
	case r.step != "" && r.step != "tool-calls" && cleanExit(exit):
		bad = &Failure{Ours: "stopped because the model's last step ended with " + r.step}
	}
	if rule := read.rules.Exit; rule != nil && exit.Code != nil && *exit.Code != 0 {
		bad, read.local = rule(*exit.Code, bad, complaint)
	}
	for _, name := range retryHeaders {
		if value, there := r.headers[name]; there && bad != nil && read.retryAfter.IsZero() {
			read.retryAfter = headerTime(name, value, read.now)
		}
	}
	return bad
}

// plainResult returns the result of a program without a protocol: its exit code decides.
func (r *Reader) plainResult(exit agented.Exit) agented.Result {
	read := &r.read
	read.text = r.tail.text()
	if !byItself(exit) {
		return read.ended(exit)
	}
	if exit.Code != nil && *exit.Code == 0 && exit.Signal == "" {
		read.outcome = agented.OutcomeSuccess
		return read.result()
	}
	read.failed()
	read.reason = howItEnded(exit)
	return read.result()
}

// results sums up the usage of a run.
type results struct {
	usage agented.Usage
	cost  float64 // the last running total of a result
	last  string  // id of the last result
}

// add adds a result and reports whether it used anything.
//
// With Adds, tokens of a result are those since the previous one. Without Final, its cost is
// a running total over the results of a process, and in newer versions of Claude Code also over a
// resumed session.
func (t *results) add(e *Event) (used bool) {
	if e.Usage == nil {
		return false
	}
	if !e.Has(Adds) {
		t.usage = *e.Usage
		return t.usage.Known()
	}
	if e.ID != "" && e.ID == t.last {
		return false // printed twice
	}
	t.last = Clip(e.ID, MaxID)
	u := *e.Usage
	if !e.Has(Final) && u.CostUSD != nil && t.usage.CostUSD != nil {
		usd := *u.CostUSD
		if usd >= t.cost {
			usd -= t.cost
		}
		u.CostUSD = &usd
	}
	if e.Cost.Known && e.Cost.V > 0 {
		t.cost = e.Cost.V
	}
	addUsage(&t.usage, u)
	if u.CostUSD != nil {
		usd := *u.CostUSD
		if t.usage.CostUSD != nil {
			usd += *t.usage.CostUSD
		}
		t.usage.CostUSD = &usd
	}
	return positive(u.InputTokens) || positive(u.OutputTokens) || u.CostUSD != nil && *u.CostUSD > 0
}

// addStep adds the usage of a step. A cost of 0 is unknown, because the CLI prints it for a model
// without a known price.
func (t *results) addStep(e *Event) {
	if e.Usage != nil {
		addUsage(&t.usage, *e.Usage)
	}
	if e.Cost.Known && e.Cost.V > 0 {
		t.cost += e.Cost.V
		usd := t.cost
		t.usage.CostUSD = &usd
	}
}

func positive(n *int64) bool { return n != nil && *n > 0 }
