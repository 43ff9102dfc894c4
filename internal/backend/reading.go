package backend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented"
)

// Bounds of what a reader keeps.
const (
	maxReason   = 600 // bytes of a reason
	maxQuote    = 400 // bytes of a CLI's own sentence in it
	maxDenied   = 50  // denied tools kept; more are counted
	maxDeniedAt = 200 // bytes of each
	maxID       = 200 // bytes of a session id or a version
)

// reading is what a reader has understood so far.
type reading struct {
	program    string // who did it, in a sentence: "claude"
	good       bool   // the CLI reported a complete, good end of its turn
	outcome    agented.Outcome
	reason     string
	text       string
	session    string
	version    string
	retryAfter time.Time
	class      agented.Class
	limit      agented.Limit
	window     string    // of a limit, when a field of the output names it
	waiting    *failure  // what it said last of trying again; nil: it got on
	now        time.Time // when the output ended, in the zone that the CLI prints times in
	gone       bool      // the session to go on with is not there
	usage      agented.Usage
	denied     denials
}

// result is the reading as it is handed on.
func (r *reading) result() agented.Result {
	out := agented.Result{
		Outcome: r.outcome, Text: clipText(r.text), SessionID: clip(r.session, maxID), CLIVersion: clip(r.version, maxID),
		RetryAfter: r.retryAfter, Class: r.class, Limit: r.limit, SessionGone: r.gone, Usage: r.usage, DeniedTools: r.denied.list(),
	}
	reasons := []string{r.reason}
	if d := r.denied.sentence(r.program); d != "" {
		reasons = append(reasons, d)
	}
	out.Reason = clip(oneLine(strings.Trim(strings.Join(reasons, "; "), "; ")), maxReason)
	return out
}

// ended is the result of an attempt that did not end by itself: what was done
// to it wins over what it printed, since a CLI that is told to stop may well
// exit 0. A result that had come before is kept and mentioned.
func (r *reading) ended(exit agented.Exit) agented.Result {
	why := strings.TrimRight(oneLine(exit.Detail), ".; ")
	say := func(fallback string) string {
		if why != "" {
			return why
		}
		return fallback
	}
	switch exit.Cause {
	case agented.CauseTimeout:
		r.outcome, r.reason = agented.OutcomeTimeout, say("ended at its time limit")
	case agented.CauseSilence:
		r.outcome, r.reason = agented.OutcomeTimeout, say("ended because it printed nothing for too long")
	case agented.CauseStuck:
		r.stuck()
	case agented.CauseCancelled:
		r.outcome, r.reason = agented.OutcomeCancelled, say("cancelled")
	case agented.CauseOutputCap:
		r.failed()
		r.reason = say("ended because it printed more than allowed")
	case agented.CauseDiskFull:
		r.outcome, r.reason = agented.OutcomeTransient, say("ended because the disk is full and its log could not be kept")
	case agented.CauseNoStart:
		r.failed()
		r.reason = say("could not be started")
	case agented.CauseShutdown:
		r.class, r.outcome = agented.ClassInterrupted, agented.OutcomeInterrupted
		r.reason = say("interrupted because the machine was shut down")
	default:
		r.class, r.outcome = agented.ClassInterrupted, agented.OutcomeInterrupted
		r.reason = say("interrupted: its supervisor was lost, so nobody saw how it ended")
	}
	if r.good {
		r.reason += "; " + r.program + " had already given its result, which is kept"
	}
	return r.result()
}

// stuck is the reading of an attempt that was ended because it waited and did
// not get on: what it waited on is whose doing it was.
func (r *reading) stuck() {
	f := failure{kind: "network", message: "it printed nothing while it waited for the model"}
	if r.waiting != nil {
		f = *r.waiting
	}
	if f.ours = ""; f.message == "" {
		f.message = f.kind
	}
	r.fail(f)
	if r.class == agented.ClassAgentFailure {
		r.class, r.outcome = agented.ClassNetwork, agented.OutcomeTransient
		r.limit = agented.Limit{Class: r.class, Evidence: clip(oneLine(f.message), agented.MaxEvidence)}
		r.reason = saying(r.program+" "+sentenceOf(r.limit, r.class), f.message)
	}
	r.reason += "; it went on waiting, so it was ended and its slot is free"
}

// printedAt is when a CLI's last words were printed, in the zone of its clock:
// an end may be read long after.
func printedAt(exit agented.Exit, now time.Time) time.Time {
	if exit.FinishedAt.IsZero() {
		return now
	}
	return exit.FinishedAt.In(now.Location())
}

// howItEnded says in words how a process went.
func howItEnded(exit agented.Exit) string {
	switch {
	case exit.Signal == "SIGKILL":
		return "ended by SIGKILL, which nobody here sent: perhaps the machine ran out of memory"
	case exit.Signal != "":
		return "ended by " + clip(oneLine(exit.Signal), 40)
	case exit.Code == nil:
		return "ended, nobody knows how"
	}
	switch code := *exit.Code; code {
	case 126:
		return "exited with code 126 (the program may not be executed)"
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

// byItself reports whether the process ended without our doing.
func byItself(exit agented.Exit) bool { return exit.Cause == agented.CauseExit || exit.Cause == "" }

// decode reads one line as a JSON object, and reports whether it is one. A
// field of an unexpected type is left empty rather than losing the line: the
// CLIs change their formats without notice.
func decode(line []byte, into any) bool {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' {
		return false
	}
	err := json.Unmarshal(line, into)
	var wrongType *json.UnmarshalTypeError
	return err == nil || errors.As(err, &wrongType)
}

// quote makes a CLI's own words fit into a sentence.
func quote(s string) string {
	s = clip(oneLine(s), maxQuote)
	if s == "" {
		return ""
	}
	return `"` + s + `"`
}

// saying is `who: "what"`, or who alone when nothing was said.
func saying(who, what string) string {
	if q := quote(what); q != "" {
		return who + ": " + q
	}
	return who
}

// oneLine turns control characters and runs of white space into one space and
// drops terminal colours, so that the words fit into a sentence.
func oneLine(s string) string {
	if len(s) > 4*maxReason {
		s = s[:4*maxReason]
	}
	s = strings.ToValidUTF8(stripANSI(s), "\uFFFD")
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }), " ")
}

// stripANSI drops terminal control sequences.
func stripANSI(s string) string {
	if !strings.Contains(s, "\x1b") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != 0x1b {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '[' {
			for i += 2; i < len(s) && (s[i] < 0x40 || s[i] > 0x7e); i++ {
			}
			continue
		}
		i++
	}
	return b.String()
}

// clip cuts s to at most n bytes at a character, marking the cut.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "…"
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// cutMark ends a final answer that was too long to keep whole.
const cutMark = "\n… (cut here; the log has the whole text)"

// clipText bounds a final answer to MaxResult bytes of valid UTF-8.
func clipText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= agented.MaxResult {
		return s
	}
	n := agented.MaxResult - len(cutMark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + cutMark
}

// answer gathers a text that comes in pieces and keeps the start of it.
type answer struct{ b []byte }

func (a *answer) reset() { a.b = a.b[:0] }

func (a *answer) add(s string) {
	// One byte more than is kept, so that clipText sees that it was too long.
	if room := agented.MaxResult + 1 - len(a.b); len(s) > room {
		s = s[:max(room, 0)]
	}
	a.b = append(a.b, s...)
}

func (a *answer) text() string { return string(a.b) }

// denials counts the tools that a permission mode refused.
type denials struct {
	kept  []string
	ids   []string // tool call ids of kept, to count none twice
	more  int
	calls []toolCall // the last calls that were made, to say of a refused one what it was
}

type toolCall struct{ id, what string }

// remember notes what a call wants to do, in case it is refused.
func (d *denials) remember(id, what string) {
	if len(d.calls) == maxDenied {
		d.calls = append(d.calls[:0], d.calls[1:]...)
	}
	d.calls = append(d.calls, toolCall{clip(id, maxID), clip(what, maxDeniedAt)})
}

// add notes one refused call. An id that is known already is not counted again.
func (d *denials) add(id, tool, what string) {
	id = clip(id, maxID)
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
	tool = oneLine(tool)
	if tool == "" {
		tool = "a tool"
	}
	if what = oneLine(what); what != "" {
		tool += ": " + what
	}
	d.kept = append(d.kept, clip(tool, maxDeniedAt))
	d.ids = append(d.ids, id)
}

func (d *denials) list() []string {
	if d.more == 0 {
		return d.kept
	}
	return append(d.kept[:len(d.kept):len(d.kept)], fmt.Sprintf("and %d more", d.more))
}

// sentence says that tools were denied, so that a success which did not do the
// work is told from one that did.
func (d *denials) sentence(program string) string {
	switch n := len(d.kept) + d.more; n {
	case 0:
		return ""
	case 1:
		return "the permission mode denied " + program + " a tool (" + clip(d.kept[0], 100) + ")"
	default:
		return fmt.Sprintf("the permission mode denied %s %d tool calls (first: %s)", program, n, clip(d.kept[0], 100))
	}
}

// inputText is the telling part of a tool's input, which every CLI shapes in
// its own way.
func inputText(input json.RawMessage) string {
	if len(input) > 64<<10 {
		return ""
	}
	var fields map[string]any
	if json.Unmarshal(input, &fields) != nil {
		return ""
	}
	for _, name := range []string{"command", "cmd", "file_path", "filePath", "path", "absolute_path", "dir_path", "url", "pattern", "query", "description"} {
		switch v := fields[name].(type) {
		case string:
			return v
		case []any:
			var words []string
			for _, w := range v {
				words = append(words, fmt.Sprint(w))
			}
			return strings.Join(words, " ")
		}
	}
	return ""
}

// said keeps the first and the last lines that were not part of a CLI's
// protocol: where it complains when it does not come as far as speaking it.
type said struct{ first, last []string }

const (
	saidFirst = 5
	saidLast  = 20
)

func (s *said) add(content []byte) {
	if len(content) > 2*maxQuote {
		content = content[:2*maxQuote]
	}
	line := oneLine(string(content))
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

// find is the last line that the function picks.
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

// tail keeps the last bytes of a text, whole lines where it can.
type tail struct{ b []byte }

func (t *tail) add(line []byte) {
	if len(line) > commandTail {
		line = line[len(line)-commandTail:]
	}
	t.b = append(t.b, line...)
	t.b = append(t.b, '\n')
	if len(t.b) > 4*commandTail {
		t.b = append(t.b[:0], t.b[len(t.b)-commandTail-1:]...)
	}
}

func (t *tail) text() string {
	b := bytes.TrimRight(t.b, "\r\n")
	if len(b) > commandTail {
		b = b[len(b)-commandTail:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
		for len(b) > 0 && !utf8.RuneStart(b[0]) {
			b = b[1:]
		}
	}
	return string(b)
}

// number is a printed number. What is no number, or makes no sense as a count
// or a sum of money, is unknown, which is not the same as zero.
type number struct {
	v     float64
	known bool
}

// UnmarshalJSON never fails, so that one odd field does not cost the line.
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	*n = number{v, err == nil && v >= 0 && v < 1e15}
	return nil
}

// plus adds what is known of m.
func (n *number) plus(m number) {
	if m.known {
		n.v, n.known = n.v+m.v, true
	}
}

// count is the number as tokens; nil when it is unknown.
func (n number) count() *int64 {
	if !n.known {
		return nil
	}
	v := int64(n.v)
	return &v
}

// money is the number as a sum; nil when it is unknown.
func (n number) money() *float64 {
	if !n.known {
		return nil
	}
	return &n.v
}
