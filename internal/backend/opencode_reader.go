package backend

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// openCodeReader reads `opencode run --format json`. There is no line for the
// end of a run: the last step must have stopped by itself and the exit be
// clean.
type openCodeReader struct {
	read   reading
	final  answer
	other  said
	log    said // lines of its own log
	worked bool
	reason string // of the last step's end
	bad    *failure
	usage  openCodeUsage
	again  *failure          // why it said that it tries again; nil: it got on
	retry  map[string]string // headers of the error that say when to come back
}

// openCodeUsage adds the steps up.
type openCodeUsage struct{ input, output, hit, fill, cost number }

type openCodeLine struct {
	Type      string `json:"type"`
	SessionID string `json:"sessionID"`
	Part      struct {
		Text   string `json:"text"`
		Reason string `json:"reason"`
		Tool   string `json:"tool"`
		CallID string `json:"callID"`
		State  struct {
			Status string          `json:"status"`
			Input  json.RawMessage `json:"input"`
			Error  string          `json:"error"`
		} `json:"state"`
		Cost   number `json:"cost"`
		Tokens *struct {
			Input     number `json:"input"`
			Output    number `json:"output"`
			Reasoning number `json:"reasoning"`
			Cache     struct {
				Read  number `json:"read"`
				Write number `json:"write"`
			} `json:"cache"`
		} `json:"tokens"`
	} `json:"part"`
	Error struct {
		Name string `json:"name"`
		Data struct {
			Message    string            `json:"message"`
			StatusCode int               `json:"statusCode"`
			Headers    map[string]string `json:"responseHeaders"`
		} `json:"data"`
	} `json:"error"`
}

// openCodeLog reports whether a line is one of OpenCode's own log, which it is
// asked to print so that it says why it asks the model again. Whatever makes it
// end is in its events or on standard error in words.
func openCodeLog(content []byte) bool {
	return bytes.HasPrefix(content, []byte("timestamp=")) && bytes.Contains(content[:min(len(content), 200)], []byte(" level="))
}

// openCodeTools are the tools that a permission rule withholds.
var openCodeTools = []string{"bash", "write", "edit", "patch", "apply_patch", "multiedit", "webfetch", "websearch", "task", "skill", "external_directory"}

func (c *openCodeReader) Line(stream agented.Stream, content []byte) {
	var l openCodeLine
	if stream != agented.Stdout || !decode(content, &l) || l.Type == "" {
		if f, is := openCodeRetry(content); is {
			c.again = &f
			return
		}
		if openCodeLog(content) {
			c.log.add(content)
		} else {
			c.other.add(content)
		}
		return
	}
	c.again = nil
	if l.SessionID != "" {
		c.read.session = clip(l.SessionID, maxID)
	}
	switch l.Type {
	case "step_start":
		c.final.reset() // also when a step is tried again
		c.reason = ""
	case "text":
		c.final.add(l.Part.Text)
	case "tool_use":
		c.tool(&l)
	case "step_finish":
		c.reason = clip(l.Part.Reason, 60)
		c.bad = nil
		if t := l.Part.Tokens; t != nil {
			c.usage.input.plus(t.Input)
			c.usage.output.plus(t.Output)
			c.usage.output.plus(t.Reasoning)
			c.usage.hit.plus(t.Cache.Read)
			c.usage.fill.plus(t.Cache.Write)
		}
		c.usage.cost.plus(l.Part.Cost)
	case "error":
		c.bad = &failure{status: l.Error.Data.StatusCode, kind: clip(l.Error.Name, maxID), message: clip(l.Error.Data.Message, 4<<10)}
		if c.bad.message == "" {
			c.bad.message = c.bad.kind
		}
		c.retry = map[string]string{}
		for name, value := range l.Error.Data.Headers {
			if name = strings.ToLower(name); slices.Contains(retryHeaders, name) {
				c.retry[name] = clip(value, 100)
			}
		}
	}
}

func (c *openCodeReader) tool(l *openCodeLine) {
	part := &l.Part
	if part.Tool == "invalid" {
		var input struct{ Tool, Error string }
		_ = json.Unmarshal(part.State.Input, &input) // an odd input names no tool
		if slices.Contains(openCodeTools, input.Tool) && strings.Contains(input.Error, "unavailable tool") {
			c.read.denied.add(part.CallID, input.Tool, "")
		}
		return
	}
	text := part.State.Error
	withheld := strings.Contains(text, "unavailable tool") && slices.Contains(openCodeTools, part.Tool)
	refused := strings.Contains(text, "rejected permission") || strings.Contains(text, "prevents you from using") || strings.Contains(text, "specified a rule")
	if part.State.Status == "error" && (withheld || refused) {
		c.read.denied.add(part.CallID, part.Tool, inputText(part.State.Input))
		return
	}
	c.worked = true
}

func (c *openCodeReader) Result(exit agented.Exit, now time.Time) agented.Result {
	c.read.program = "opencode"
	c.read.now = printedAt(exit, now)
	c.read.text = c.final.text()
	u := c.usage
	c.read.usage = agented.Usage{InputTokens: u.input.count(), OutputTokens: u.output.count(), CacheReadTokens: u.hit.count(), CacheWriteTokens: u.fill.count()}
	if u.cost.v > 0 {
		// It prints 0 for a model that it knows no price of.
		c.read.usage.CostUSD = u.cost.money()
	}
	if len(c.read.denied.kept) == 0 {
		if asked := c.other.find(func(s string) bool { return strings.Contains(s, "auto-rejecting") }); asked != "" {
			_, what, _ := strings.Cut(asked, "permission requested: ")
			c.read.denied.add("", strings.TrimSuffix(what, "; auto-rejecting"), "")
		}
	}
	c.read.good = c.reason == "stop" && c.bad == nil
	if c.read.waiting = c.again; !byItself(exit) {
		return c.read.ended(exit)
	}
	bad := c.bad
	if bad == nil && !c.read.good && c.reason != "" && c.reason != "tool-calls" && cleanExit(exit) {
		bad = &failure{ours: "stopped because the model's last step ended with " + c.reason}
	}
	for _, name := range retryHeaders {
		if value, there := c.retry[name]; there && bad != nil && c.read.retryAfter.IsZero() {
			c.read.retryAfter = headerTime(name, value, c.read.now)
		}
	}
	complaint := c.other.complaint()
	if complaint == "" {
		complaint = c.log.complaint()
	}
	return c.read.finish(exit, bad, c.worked, complaint)
}
