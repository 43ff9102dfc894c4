package claude

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// line is a line of `claude -p --output-format stream-json`. Keys have no fixed order.
type line struct {
	Type      string `json:"type"`
	Subtype   string `json:"subtype"`
	SessionID string `json:"session_id"`
	UUID      string `json:"uuid"`
	Version   string `json:"claude_code_version"`
	Ours      string `json:"agented_version"` // set by the built-in backend
	Model     string `json:"model"`
	Folder    string `json:"cwd"`
	Mode      string `json:"permissionMode"`
	Status    string `json:"status"`
	Parent    string `json:"parent_tool_use_id"`
	TaskID    string `json:"task_id"`
	Task      string `json:"description"`

	// Message is an object, or a string in an error.
	Message     json.RawMessage `json:"message"`
	Event       event           `json:"event"`
	Error       string          `json:"error"` // of an assistant message or an api_retry
	ErrorStatus *int            `json:"error_status"`
	Attempt     agentcli.Number `json:"attempt"`
	MaxRetries  agentcli.Number `json:"max_retries"`
	RetryDelay  agentcli.Number `json:"retry_delay_ms"`

	ToolName  string `json:"tool_name"`
	ToolUseID string `json:"tool_use_id"`

	RateLimit struct {
		Status   string  `json:"status"`
		ResetsAt float64 `json:"resetsAt"`
		Kind     string  `json:"rateLimitType"`
	} `json:"rate_limit_info"`

	IsError        bool            `json:"is_error"`
	Turns          agentcli.Number `json:"num_turns"`
	Duration       agentcli.Number `json:"duration_ms"`
	APIErrorStatus *int            `json:"api_error_status"`
	APIErrorType   string          `json:"api_error_type"`
	Text           string          `json:"result"`
	Output         json.RawMessage `json:"structured_output"`
	TerminalReason string          `json:"terminal_reason"`
	Errors         []string        `json:"errors"`
	TotalCost      agentcli.Number `json:"total_cost_usd"`
	Usage          *tokens         `json:"usage"`
	SinceLast      map[string]struct {
		Input      agentcli.Number `json:"inputTokens"`
		Output     agentcli.Number `json:"outputTokens"`
		CacheRead  agentcli.Number `json:"cacheReadInputTokens"`
		CacheWrite agentcli.Number `json:"cacheCreationInputTokens"`
		Cost       agentcli.Number `json:"costUSD"`
	} `json:"model_usage_since_last_result"`
	Denials []struct {
		Tool  string          `json:"tool_name"`
		ID    string          `json:"tool_use_id"`
		Input json.RawMessage `json:"tool_input"`
	} `json:"permission_denials"`
}

type tokens struct {
	Input      agentcli.Number `json:"input_tokens"`
	Output     agentcli.Number `json:"output_tokens"`
	CacheRead  agentcli.Number `json:"cache_read_input_tokens"`
	CacheWrite agentcli.Number `json:"cache_creation_input_tokens"`
}

func (t *tokens) usage() agented.Usage {
	return agented.Usage{
		InputTokens: t.Input.Count(), OutputTokens: t.Output.Count(), CacheReadTokens: t.CacheRead.Count(), CacheWriteTokens: t.CacheWrite.Count(),
	}
}

type event struct {
	Type  string `json:"type"`
	Delta struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		Thinking string `json:"thinking"`
		JSON     string `json:"partial_json"`
	} `json:"delta"`
}

type message struct {
	ID      string          `json:"id"`
	Model   string          `json:"model"`
	Content json.RawMessage `json:"content"`
	Usage   *tokens         `json:"usage"`
}

type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	IsError   bool            `json:"is_error"`
}

// Text implements [agentcli.CLI].
func (CLI) Text(_ agented.Stream, content []byte) []agentcli.Event {
	return []agentcli.Event{agentcli.Plain(content)}
}

// Object implements [agentcli.CLI].
func (CLI) Object(object []byte) (events []agentcli.Event, typed bool) {
	var l line
	if !agentcli.Unmarshal(object, &l) {
		return nil, false
	}
	switch l.Type {
	case "system":
		events = l.system()
	case "rate_limit_event":
		events = []agentcli.Event{{Kind: agentcli.KindLimit, Status: l.RateLimit.Status, ResetsAt: l.RateLimit.ResetsAt, Window: l.RateLimit.Kind}}
	case "assistant", "user":
		events = l.message()
	case "stream_event":
		events = []agentcli.Event{l.delta()}
	case "result":
		events = l.result()
	default:
		events = []agentcli.Event{{Kind: agentcli.KindUnknown}}
	}
	events[0].Session = agentcli.Clip(l.SessionID, agentcli.MaxID)
	return events, l.Type != ""
}

func (l *line) system() []agentcli.Event {
	e := agentcli.Event{Kind: agentcli.KindUnknown}
	switch l.Subtype {
	case "init":
		e = agentcli.Event{
			Kind: agentcli.KindStarted, Model: l.Model, Version: cmp.Or(l.Version, l.Ours), Folder: l.Folder, Mode: l.Mode, Marks: agentcli.Resumes,
		}
	case "api_retry":
		kind := agentcli.Clip(l.Error, agentcli.MaxID)
		e = agentcli.Event{
			Kind: agentcli.KindRetry, APIError: kind, Attempt: int64(l.Attempt.V), Attempts: int64(l.MaxRetries.V), RetryAfter: int64(l.RetryDelay.V),
			Error: &agentcli.Failure{Kind: kind, Ours: "ended while it retried after an error of the model's API"},
		}
		if l.ErrorStatus != nil {
			e.Error.Status, e.HTTPStatus = *l.ErrorStatus, *l.ErrorStatus
		}
	case "permission_denied":
		// The result repeats it with the input, but an interrupted run has no result.
		e = agentcli.Event{Kind: agentcli.KindDenied, ID: l.ToolUseID, Tool: l.ToolName}
		_ = json.Unmarshal(l.Message, &e.Text) // of another type: there is no reason
	case "task_started":
		e = agentcli.Event{Kind: agentcli.KindTask, ID: l.TaskID, Detail: agentcli.Clip(l.Task, 200), Marks: agentcli.Opens}
	case "task_notification":
		e = agentcli.Event{Kind: agentcli.KindTask, ID: l.TaskID, Marks: agentcli.Closes}
	case "compact_boundary":
		e = agentcli.Event{Kind: agentcli.KindNote, Text: "The conversation was compacted."}
	case "status":
		e = agentcli.Event{Kind: agentcli.KindNote, Text: "Status: " + cmp.Or(l.Status, "unknown")}
	}
	return []agentcli.Event{e}
}

// message returns the events of a message of the agent, or of the results of its tools.
func (l *line) message() []agentcli.Event {
	var m message
	_ = agentcli.Unmarshal(l.Message, &m) // of another type: it is empty
	sub := l.Parent != ""
	resumes := agentcli.Mark(0)
	if !sub {
		resumes = agentcli.Resumes
	}
	assistant := l.Type == "assistant"
	var out []agentcli.Event
	if assistant {
		e := agentcli.Event{
			Kind: agentcli.KindUsage, ID: m.ID, Model: m.Model, APIError: l.Error, SubAgent: sub, Marks: agentcli.Recovered | resumes,
		}
		if m.Usage != nil && m.Model != "<synthetic>" {
			u := m.Usage.usage()
			e.Usage = &u
		}
		out = append(out, e)
	}
	var text string
	var blocks []block
	strict := json.Unmarshal(m.Content, &blocks) == nil
	if json.Unmarshal(m.Content, &text) == nil && text != "" {
		// A text in place of a list is a prompt.
		out = append(out, agentcli.Event{Kind: agentcli.KindMessage, Role: "user", Text: text, SubAgent: sub})
	}
	first := true
	for _, b := range blocks {
		e := l.block(&b, assistant)
		if e.Kind == agentcli.KindMessage && assistant && !sub && l.Error == "" {
			if first {
				e.Marks |= agentcli.Restarts
			}
			first = false
		}
		if !strict {
			e.Marks |= agentcli.Lenient
		}
		e.SubAgent = sub
		e.APIError = l.Error
		out = append(out, e)
	}
	if len(out) == 0 {
		out = []agentcli.Event{{Kind: agentcli.KindUnknown}}
	}
	out[0].Marks |= resumes
	return out
}

func (l *line) block(b *block, assistant bool) agentcli.Event {
	works := agentcli.Mark(0)
	if assistant {
		works = agentcli.Works
	}
	switch b.Type {
	case "text":
		return agentcli.Event{Kind: agentcli.KindMessage, Role: l.Type, Text: b.Text}
	case "thinking":
		return agentcli.Event{Kind: agentcli.KindReasoning, Text: b.Thinking}
	case "redacted_thinking":
		return agentcli.Event{Kind: agentcli.KindReasoning, Hidden: true}
	case "tool_use":
		return agentcli.Event{Kind: agentcli.KindToolCall, ID: b.ID, Tool: b.Name, Input: b.Input, Marks: agentcli.Opens | works}
	case "server_tool_use", "mcp_tool_use":
		return agentcli.Event{Kind: agentcli.KindToolCall, ID: b.ID, Tool: b.Name, Input: b.Input, Remote: true}
	case "tool_result":
		e := toolResult(b)
		e.Marks |= agentcli.Closes
		return e
	case "mcp_tool_result", "web_search_tool_result":
		e := toolResult(b)
		e.Remote = true
		return e
	}
	return agentcli.Event{Kind: agentcli.KindUnknown}
}

func toolResult(b *block) agentcli.Event {
	e := agentcli.Event{Kind: agentcli.KindToolResult, ID: b.ToolUseID, Failed: b.IsError, Parts: agentcli.ContentParts(b.Content)}
	e.Text = strings.Join(e.Parts, "\n")
	return e
}

func (l *line) delta() agentcli.Event {
	e := agentcli.Event{Kind: agentcli.KindDelta, SubAgent: l.Parent != ""}
	if !e.SubAgent {
		e.Marks = agentcli.Resumes
	}
	switch d := &l.Event.Delta; {
	case l.Event.Type == "message_start":
		e.Role = agentcli.DeltaStart
	case d.Type == "text_delta" && d.Text != "":
		e.Role, e.Text = agentcli.DeltaText, d.Text
	case d.Type == "thinking_delta" && d.Thinking != "":
		e.Role, e.Text = agentcli.DeltaReasoning, d.Thinking
	default:
		e.Role, e.Text = agentcli.DeltaInput, cmp.Or(d.Text, d.Thinking, d.JSON)
	}
	return e
}

func (l *line) result() []agentcli.Event {
	var out []agentcli.Event
	for _, d := range l.Denials {
		out = append(out, agentcli.Event{Kind: agentcli.KindDenied, ID: d.ID, Tool: d.Tool, Summary: agentcli.InputText(d.Input), Repeated: true})
	}
	u, since := l.usage()
	e := agentcli.Event{
		Kind: agentcli.KindResult, ID: l.UUID, Text: l.Text, Detail: strings.Join(l.Errors, "\n"), Parts: l.Errors, Failed: l.Subtype != "success" || l.IsError,
		Usage: &u, Cost: l.TotalCost, Turns: l.Turns.Count(), DurationMS: l.Duration.Count(),
		Marks: agentcli.Adds | agentcli.Restarts | agentcli.Recovered,
	}
	if len(l.Output) <= agented.MaxResult && string(l.Output) != "null" {
		e.Output = l.Output
	}
	if since {
		e.Marks |= agentcli.Final
	}
	if l.Subtype == "error_max_budget_usd" {
		e.Marks |= agentcli.OverBudget
	}
	e.Reason = strings.ReplaceAll(l.Subtype, "_", " ")
	if l.Subtype == "" && !l.IsError {
		e.Marks |= agentcli.Unstated
	}
	if l.APIErrorStatus == nil && l.Text == "" && l.Turns.V == 0 {
		e.Marks |= agentcli.Empty
	}
	if e.Failed {
		e.Error = l.failure()
	}
	return append(out, e)
}

// failure returns the failure of a result without success. API errors have the subtype success with
// is_error set.
func (l *line) failure() *agentcli.Failure {
	f := &agentcli.Failure{Kind: agentcli.Clip(l.APIErrorType, agentcli.MaxID), Message: agentcli.Clip(l.Text, agentcli.MaxMessage), Answer: true}
	if l.APIErrorStatus != nil {
		f.Status = *l.APIErrorStatus
	}
	if f.Message == "" {
		// Some are diagnostics for the CLI's developers.
		said := slices.DeleteFunc(slices.Clone(l.Errors), func(s string) bool { return strings.HasPrefix(s, "[ede_diagnostic]") })
		f.Message = agentcli.Clip(strings.Join(said, "; "), agentcli.MaxMessage)
		f.Own = f.Status == 0 && l.APIErrorType == ""
	}
	switch {
	case l.Subtype == "error_max_turns":
		return &agentcli.Failure{Ours: "stopped because it reached the limit of turns (--max-turns)"}
	case l.Subtype == "error_max_budget_usd":
		return &agentcli.Failure{Ours: "stopped because it reached its budget (--max-budget-usd)"}
	case strings.HasPrefix(l.TerminalReason, "aborted"):
		return &agentcli.Failure{Ours: "was aborted during its work (" + agentcli.Clip(l.TerminalReason, 60) + ")"}
	case f.Message == "":
		f.Ours = "ended with the result " + agentcli.Clip(l.Subtype, 60)
	}
	return f
}

// usage returns the usage that a result reports. Its tokens are those since the previous result. Its
// cost is a running total, unless the result also has what was used since the previous one.
func (l *line) usage() (u agented.Usage, since bool) {
	if l.Usage != nil {
		u = l.Usage.usage()
	}
	if l.SinceLast == nil {
		u.CostUSD = l.TotalCost.Money()
		return u, false
	}
	var in, out, hit, fill agentcli.Number
	dollars := agentcli.Number{Known: true} // no usage since then costs nothing
	for _, m := range l.SinceLast {
		in.Plus(m.Input)
		out.Plus(m.Output)
		hit.Plus(m.CacheRead)
		fill.Plus(m.CacheWrite)
		dollars.Plus(m.Cost)
		dollars.Known = dollars.Known && m.Cost.Known
	}
	u.CostUSD = dollars.Money()
	if len(l.SinceLast) > 0 {
		// Includes sub-agents and side queries.
		u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens = in.Count(), out.Count(), hit.Count(), fill.Count()
	}
	return u, true
}
