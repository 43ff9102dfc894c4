package backend

import (
	"encoding/json"
	"slices"
	"strconv"
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
	worked bool
	reason string // of the last step's end
	bad    *failure
	usage  openCodeUsage
	retry  string // retry-after header of the error
}

type openCodeUsage struct {
	known                    bool
	input, output, hit, fill int64
	cost                     float64
	priced                   bool
}

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
		Cost   *float64 `json:"cost"`
		Tokens *struct {
			Input     int64 `json:"input"`
			Output    int64 `json:"output"`
			Reasoning int64 `json:"reasoning"`
			Cache     struct {
				Read  int64 `json:"read"`
				Write int64 `json:"write"`
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

// openCodeTools are the tools that a permission rule withholds.
var openCodeTools = []string{"bash", "write", "edit", "patch", "apply_patch", "multiedit", "webfetch", "websearch", "task", "skill", "external_directory"}

func (c *openCodeReader) Line(stream agented.Stream, content []byte) {
	var l openCodeLine
	if stream != agented.Stdout || !decode(content, &l) || l.Type == "" {
		c.other.add(content)
		return
	}
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
			c.usage.known = true
			c.usage.input += max(t.Input, 0)
			c.usage.output += max(t.Output, 0) + max(t.Reasoning, 0)
			c.usage.hit += max(t.Cache.Read, 0)
			c.usage.fill += max(t.Cache.Write, 0)
		}
		if p := cost(l.Part.Cost); p != nil {
			c.usage.priced = c.usage.priced || *p > 0
			c.usage.cost += *p
		}
	case "error":
		c.bad = &failure{status: l.Error.Data.StatusCode, kind: clip(l.Error.Name, maxID), message: clip(l.Error.Data.Message, 4<<10)}
		if c.bad.message == "" {
			c.bad.message = c.bad.kind
		}
		for name, value := range l.Error.Data.Headers {
			if strings.EqualFold(name, "retry-after") {
				c.retry = clip(value, 40)
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
	c.read.text = c.final.text()
	if u := c.usage; u.known {
		c.read.usage = agented.Usage{InputTokens: &u.input, OutputTokens: &u.output, CacheReadTokens: &u.hit, CacheWriteTokens: &u.fill}
		if u.priced {
			// It prints 0 for a model that it knows no price of.
			c.read.usage.CostUSD = &u.cost
		}
	}
	if len(c.read.denied.kept) == 0 {
		if asked := c.other.find(func(s string) bool { return strings.Contains(s, "auto-rejecting") }); asked != "" {
			_, what, _ := strings.Cut(asked, "permission requested: ")
			c.read.denied.add("", strings.TrimSuffix(what, "; auto-rejecting"), "")
		}
	}
	c.read.good = c.reason == "stop" && c.bad == nil
	if !byItself(exit) {
		return c.read.ended(exit)
	}
	bad := c.bad
	if bad == nil && !c.read.good && c.reason != "" && c.reason != "tool-calls" && cleanExit(exit) {
		bad = &failure{message: "the model's last step ended with " + c.reason}
	}
	if bad != nil {
		if seconds, err := strconv.Atoi(c.retry); err == nil && bad.outcome() == agented.OutcomeRateLimited {
			if at := exit.FinishedAt; !at.IsZero() {
				now = at
			}
			c.read.retryAfter = after(now, seconds)
		}
	}
	return c.read.finish(exit, bad, c.worked, c.other.complaint())
}
