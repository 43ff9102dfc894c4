package backend

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// claudeReader reads `claude -p --output-format stream-json`. Keys come in any
// order, and the line that matters is the one of type result.
type claudeReader struct {
	read    reading
	final   answer // of the last assistant message, in case there is no result line
	other   said
	worked  bool // a tool was called
	ended   bool // there was a result line
	bad     *failure
	apiKind string  // the CLI's word for the API error that the last message was
	resets  float64 // epoch of the last refusing rate_limit_event
	window  string  // and which allowance it speaks of
	retry   *failure
}

// claudeLine is what is read of any line.
type claudeLine struct {
	Type      string `json:"type"`
	Subtype   string `json:"subtype"`
	SessionID string `json:"session_id"`
	Version   string `json:"claude_code_version"`
	Ours      string `json:"agented_version"` // of the backend that is part of Agented
	Parent    string `json:"parent_tool_use_id"`

	Message struct {
		Content []claudeBlock `json:"content"`
	} `json:"message"`
	Error       string `json:"error"` // of an assistant message or an api_retry
	ErrorStatus *int   `json:"error_status"`

	ToolName  string `json:"tool_name"`
	ToolUseID string `json:"tool_use_id"`

	RateLimit struct {
		Status   string  `json:"status"`
		ResetsAt float64 `json:"resetsAt"`
		Kind     string  `json:"rateLimitType"`
	} `json:"rate_limit_info"`

	IsError        bool     `json:"is_error"`
	APIErrorStatus *int     `json:"api_error_status"`
	APIErrorType   string   `json:"api_error_type"`
	Text           string   `json:"result"`
	TerminalReason string   `json:"terminal_reason"`
	Errors         []string `json:"errors"`
	TotalCost      number   `json:"total_cost_usd"`
	Usage          *struct {
		Input      number `json:"input_tokens"`
		Output     number `json:"output_tokens"`
		CacheRead  number `json:"cache_read_input_tokens"`
		CacheWrite number `json:"cache_creation_input_tokens"`
	} `json:"usage"`
	SinceLast map[string]struct {
		Input      number `json:"inputTokens"`
		Output     number `json:"outputTokens"`
		CacheRead  number `json:"cacheReadInputTokens"`
		CacheWrite number `json:"cacheCreationInputTokens"`
		Cost       number `json:"costUSD"`
	} `json:"model_usage_since_last_result"`
	Denials []struct {
		Tool  string          `json:"tool_name"`
		ID    string          `json:"tool_use_id"`
		Input json.RawMessage `json:"tool_input"`
	} `json:"permission_denials"`
}

type claudeBlock struct {
	Type  string          `json:"type"`
	Text  string          `json:"text"`
	Name  string          `json:"name"`
	ID    string          `json:"id"`
	Input json.RawMessage `json:"input"`
}

func (c *claudeReader) Line(stream agented.Stream, content []byte) {
	var l claudeLine
	if stream != agented.Stdout || !decode(content, &l) || l.Type == "" {
		c.other.add(content)
		return
	}
	if l.SessionID != "" {
		c.read.session = clip(l.SessionID, maxID)
	}
	switch l.Type {
	case "system":
		c.system(&l)
	case "rate_limit_event":
		if l.RateLimit.Status == "rejected" {
			c.resets, c.window = l.RateLimit.ResetsAt, windowOf(l.RateLimit.Kind)
		}
	case "assistant":
		c.assistant(&l)
	case "result":
		c.end(&l)
	}
}

func (c *claudeReader) system(l *claudeLine) {
	switch l.Subtype {
	case "init":
		if v := cmp.Or(l.Version, l.Ours); v != "" {
			c.read.version = clip(v, maxID)
		}
	case "api_retry":
		c.retry = &failure{kind: clip(l.Error, maxID), ours: "went away while it tried again after an error of the model's API"}
		if l.ErrorStatus != nil {
			c.retry.status = *l.ErrorStatus
		}
	case "permission_denied":
		// The result repeats it with the input; a run that is cut short has
		// no result.
		c.read.denied.add(l.ToolUseID, l.ToolName, "")
	}
}

func (c *claudeReader) assistant(l *claudeLine) {
	c.retry = nil
	c.apiKind = clip(l.Error, maxID)
	text := false
	for _, block := range l.Message.Content {
		switch block.Type {
		case "tool_use":
			c.worked = true
			c.read.denied.remember(block.ID, inputText(block.Input))
		case "text":
			if l.Parent != "" || c.apiKind != "" {
				continue // of a sub-agent; or an API error in the guise of a message
			}
			if !text {
				c.final.reset()
			}
			text = true
			c.final.add(block.Text)
		}
	}
}

// end reads the result line. There is one; should there be more, as when an
// agent prints something that looks like it, the last one counts.
func (c *claudeReader) end(l *claudeLine) {
	c.ended, c.retry, c.bad = true, nil, nil
	c.read.good = l.Subtype == "success" && !l.IsError
	if c.read.good {
		c.final.reset()
		c.final.add(l.Text)
	} else {
		c.bad = c.badEnd(l)
	}
	for _, d := range l.Denials {
		c.read.denied.add(d.ID, d.Tool, inputText(d.Input))
	}
	c.read.usage = claudeUsage(l)
}

// badEnd says what a result line that is no success means. API errors come as
// subtype success with is_error set.
func (c *claudeReader) badEnd(l *claudeLine) *failure {
	f := &failure{kind: c.apiKind + " " + clip(l.APIErrorType, maxID), message: clip(l.Text, 4<<10)}
	if l.APIErrorStatus != nil {
		f.status = *l.APIErrorStatus
	}
	if f.message == "" {
		// Some are notes for its own makers.
		said := slices.DeleteFunc(slices.Clone(l.Errors), func(s string) bool { return strings.HasPrefix(s, "[ede_diagnostic]") })
		f.message = clip(strings.Join(said, "; "), 4<<10)
	}
	switch {
	case l.Subtype == "error_max_turns":
		f = &failure{ours: "stopped because the limit on turns (--max-turns) was reached"}
	case l.Subtype == "error_max_budget_usd":
		f = &failure{ours: "stopped because the budget (--max-budget-usd) was used up"}
	case strings.HasPrefix(l.TerminalReason, "aborted"):
		f = &failure{ours: "was aborted in the middle of its work (" + clip(l.TerminalReason, 60) + ")"}
	case f.message == "":
		f.ours = "ended with the result " + clip(l.Subtype, 60)
	}
	return f
}

// claudeUsage is what this run consumed. The totals of a resumed session count
// the session in newer versions and the run in older ones; what came since the
// last result is this run's in all that print it.
func claudeUsage(l *claudeLine) agented.Usage {
	var u agented.Usage
	if l.Usage != nil {
		u.InputTokens, u.OutputTokens = l.Usage.Input.count(), l.Usage.Output.count()
		u.CacheReadTokens, u.CacheWriteTokens = l.Usage.CacheRead.count(), l.Usage.CacheWrite.count()
	}
	if l.SinceLast == nil {
		u.CostUSD = l.TotalCost.money()
		return u
	}
	var in, out, hit, fill number
	dollars := number{known: true} // nothing used since costs nothing
	for _, m := range l.SinceLast {
		in.plus(m.Input)
		out.plus(m.Output)
		hit.plus(m.CacheRead)
		fill.plus(m.CacheWrite)
		dollars.plus(m.Cost)
		dollars.known = dollars.known && m.Cost.known
	}
	u.CostUSD = dollars.money()
	if len(l.SinceLast) > 0 {
		// Sub-agents and side questions count too.
		u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens = in.count(), out.count(), hit.count(), fill.count()
	}
	return u
}

func (c *claudeReader) Result(exit agented.Exit, now time.Time) agented.Result {
	if c.read.program == "" {
		c.read.program = "claude"
	}
	c.read.text = c.final.text()
	c.read.now = printedAt(exit, now)
	if c.resets > 0 {
		c.read.retryAfter, c.read.window = epochTime(c.resets, c.read.now), c.window
	}
	if c.read.waiting = c.retry; !byItself(exit) {
		return c.read.ended(exit)
	}
	bad := c.bad
	if bad == nil && !c.ended {
		bad = c.retry
	}
	return c.read.finish(exit, bad, c.worked, c.other.complaint())
}
