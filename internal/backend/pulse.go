package backend

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// How long a CLI may wait before its attempt is ended so that its slot is free.
const (
	// retryPatience is for a CLI that said that it tries again and has not got
	// on since. What they do by themselves takes four minutes at most.
	retryPatience = 5 * time.Minute
	// quietPatience is for one that waits for the model and says nothing at
	// all: it may be thinking, or the connection may be dead.
	quietPatience = 30 * time.Minute
)

// Pulse tells a running CLI that works from one that waits on a limit, an
// overload or a network and would go on to do so: Codex sleeps for as long as
// it is told, and waits for a network for ever. It is pure and small; what it
// knows can be made again from the attempt's log at any time.
type Pulse struct {
	line  func(*Pulse, agented.Stream, []byte)
	quiet time.Duration // patience with one that waits for the model; 0: for ever
	moved time.Time     // when it got on last
	since time.Time     // first time that it said it tries again, after moved
	retry *failure      // what it said then; nil: nothing
	tools []string      // ids of tools that run
	waits bool          // it waits for the model and for nothing else
	got   bool          // the line at hand shows that it got on
}

// Stuck is what a CLI waits on.
type Stuck struct {
	Class agented.Class
	Why   string // one sentence: what it said last, or that it said nothing
}

// Line takes one whole line, printed at the time.
func (p *Pulse) Line(at time.Time, stream agented.Stream, content []byte) {
	p.got = false
	was := p.retry
	p.line(p, stream, content)
	switch {
	case p.got:
		p.moved, p.retry = at, nil
	case p.retry != nil && was == nil:
		p.since = at
	}
}

// Skip says that lines came which Pulse did not get to see, up to the time: too
// many, or too long ones.
func (p *Pulse) Skip(at time.Time) {
	p.moved, p.retry, p.tools, p.waits = at, nil, nil, false
}

// Rest says that up to the time nobody could expect the CLI to get on: it was
// held.
func (p *Pulse) Rest(until time.Time) { p.moved, p.since = until, until }

// Stuck reports whether the CLI waits for good by now, as far as can be told.
func (p *Pulse) Stuck(now time.Time) (Stuck, bool) {
	switch {
	case len(p.tools) > 0:
		return Stuck{}, false // a tool may take as long as the trigger allows
	case p.retry != nil && now.Sub(p.since) >= retryPatience:
		class := p.retry.class()
		if class == agented.ClassAgentFailure {
			class = agented.ClassNetwork
		}
		return Stuck{class, oneLine(clip(inner(p.retry.message), maxQuote))}, true
	case p.retry == nil && p.waits && p.quiet > 0 && now.Sub(p.moved) >= p.quiet:
		return Stuck{agented.ClassNetwork, "it printed nothing for " + p.quiet.String() + " while it waited for the model"}, true
	}
	return Stuck{}, false
}

// again notes that the CLI said that it tries again.
func (p *Pulse) again(f failure) {
	f.message = clip(f.message, 4<<10)
	p.retry = &f
}

// on notes that the CLI got on; waits says that it waits for the model now.
func (p *Pulse) on(waits bool) { p.got, p.waits = true, waits }

// started and ended note a tool. More than a hundred at once are not counted.
func (p *Pulse) started(id string) {
	if id = clip(id, maxID); !slices.Contains(p.tools, id) && len(p.tools) < 100 {
		p.tools = append(p.tools, id)
	}
}

func (p *Pulse) ended(id string) {
	id = clip(id, maxID)
	p.tools = slices.DeleteFunc(p.tools, func(s string) bool { return s == id })
}

func newPulse(line func(*Pulse, agented.Stream, []byte), quiet time.Duration, began time.Time) *Pulse {
	return &Pulse{line: line, quiet: quiet, moved: began, waits: true}
}

func (command) Pulse(time.Time) *Pulse        { return nil }
func (claude) Pulse(began time.Time) *Pulse   { return newPulse(claudePulse, 0, began) }
func (codex) Pulse(began time.Time) *Pulse    { return newPulse(codexPulse, quietPatience, began) }
func (gemini) Pulse(began time.Time) *Pulse   { return newPulse(geminiPulse, quietPatience, began) }
func (openCode) Pulse(began time.Time) *Pulse { return newPulse(openCodePulse, quietPatience, began) }

// claudePulse: Claude Code bounds each of its own waits (API_TIMEOUT_MS), so
// only retries count.
func claudePulse(p *Pulse, stream agented.Stream, content []byte) {
	var l struct {
		Type        string `json:"type"`
		Subtype     string `json:"subtype"`
		Error       string `json:"error"`
		ErrorStatus int    `json:"error_status"`
		Message     struct {
			Content []struct {
				Type      string `json:"type"`
				ID        string `json:"id"`
				ToolUseID string `json:"tool_use_id"`
			} `json:"content"`
		} `json:"message"`
	}
	if stream != agented.Stdout || !decode(content, &l) {
		return
	}
	switch l.Type {
	case "system":
		if l.Subtype == "api_retry" {
			p.again(failure{status: l.ErrorStatus, kind: clip(l.Error, maxID), message: "it tries again after an error of the model's API: " + clip(l.Error, maxID)})
			return
		}
	case "assistant", "user":
		for _, block := range l.Message.Content {
			switch block.Type {
			case "tool_use":
				p.started(block.ID)
			case "tool_result":
				p.ended(block.ToolUseID)
			}
		}
	}
	p.on(true)
}

func codexPulse(p *Pulse, stream agented.Stream, content []byte) {
	var l codexLine
	if stream != agented.Stdout || !decode(content, &l) {
		return
	}
	switch l.Type {
	case "error":
		p.again(failure{message: l.Message})
		return
	case "item.started":
		p.started(l.Item.ID)
	case "item.completed":
		p.ended(l.Item.ID)
		if l.Item.Type == "error" {
			return // a warning
		}
	}
	p.on(true)
}

func geminiPulse(p *Pulse, stream agented.Stream, content []byte) {
	var l geminiLine
	if stream != agented.Stdout || !decode(content, &l) {
		if f, is := geminiRetry(content); is {
			p.again(f)
		}
		return
	}
	switch l.Type {
	case "tool_use":
		p.started(l.ToolID)
	case "tool_result":
		p.ended(l.ToolID)
	}
	p.on(true)
}

// geminiRetry reads "Attempt 1 failed: …. Retrying after 5993ms...", of which
// the end may be on the next line.
func geminiRetry(content []byte) (failure, bool) {
	line := oneLine(clip(string(content), 4<<10))
	if !strings.HasPrefix(line, "Attempt ") || !strings.Contains(clip(line, 40), " failed") {
		return failure{}, false
	}
	return failure{message: line, google: true}, true
}

// openCodePulse: a tool's line comes when the tool has ended, so between a
// step's beginning and its end there may be one at work. Before the first step
// and after a step's end OpenCode waits for the model.
func openCodePulse(p *Pulse, stream agented.Stream, content []byte) {
	var l struct {
		Type string `json:"type"`
	}
	if stream != agented.Stdout || !decode(content, &l) || l.Type == "" {
		if f, is := openCodeRetry(content); is {
			p.again(f)
		}
		return
	}
	p.on(l.Type == "step_finish")
}

// openCodeRetry reads the line of OpenCode's own log that says why it asks the
// model again. Its side questions, such as one for a title, do not count.
func openCodeRetry(content []byte) (failure, bool) {
	line := string(content)
	if len(line) > 64<<10 || !strings.Contains(line, "level=ERROR") || !strings.Contains(line, `message="stream error"`) || strings.Contains(line, "small=true") {
		return failure{}, false
	}
	_, quoted, found := strings.Cut(line, "error.error=")
	if !found {
		return failure{}, false
	}
	var message string
	if json.NewDecoder(strings.NewReader(quoted)).Decode(&message) != nil {
		message = quoted // without quotes, or cut
	}
	return failure{message: clip(message, 4<<10)}, true
}
