package opencode

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// line is a line of `opencode run --format json`. The format has no event for the end of a run: the
// last step must have stopped by itself, and the exit must be clean.
type line struct {
	Type      string          `json:"type"`
	SessionID string          `json:"sessionID"`
	Message   string          `json:"message"`
	Error     json.RawMessage `json:"error"`
	Part      part            `json:"part"`
}

type part struct {
	Text   string          `json:"text"`
	Reason string          `json:"reason"`
	Tool   string          `json:"tool"`
	CallID string          `json:"callID"`
	Cost   agentcli.Number `json:"cost"`
	State  struct {
		Status string          `json:"status"`
		Title  string          `json:"title"`
		Input  json.RawMessage `json:"input"`
		Output string          `json:"output"`
		Error  string          `json:"error"`
	} `json:"state"`
	Tokens *struct {
		Input     agentcli.Number `json:"input"`
		Output    agentcli.Number `json:"output"`
		Reasoning agentcli.Number `json:"reasoning"`
		Cache     struct {
			Read  agentcli.Number `json:"read"`
			Write agentcli.Number `json:"write"`
		} `json:"cache"`
	} `json:"tokens"`
}

// ownLog reports whether a line belongs to OpenCode's own log, which is enabled to see the reasons of
// retries. Fatal errors appear in events or as plain text on standard error.
func ownLog(content []byte) bool {
	return bytes.HasPrefix(content, []byte("timestamp=")) && bytes.Contains(content[:min(len(content), 200)], []byte(" level="))
}

// permission matches a line with a tool that was denied.
const permission = "permission requested: "

// Text implements [agentcli.CLI].
func (CLI) Text(_ agented.Stream, content []byte) []agentcli.Event {
	if f := retry(content); f != nil {
		return []agentcli.Event{{Kind: agentcli.KindRetry, Text: f.Message, Error: f}}
	}
	e := agentcli.Plain(content)
	if ownLog(content) {
		e.Kind = agentcli.KindLog
		return []agentcli.Event{e}
	}
	out := []agentcli.Event{e}
	if text := agentcli.OneLine(string(content[:min(len(content), 1<<10)])); strings.Contains(text, "auto-rejecting") {
		_, what, _ := strings.Cut(text, permission)
		out = append(out, agentcli.Event{
			Kind: agentcli.KindDenied, Tool: cmp.Or(strings.TrimSuffix(what, "; auto-rejecting"), "a tool"), Marks: agentcli.Idle | agentcli.Fallback,
		})
	}
	return out
}

// retry returns the reason of a retry from a line of OpenCode's own log. Its side queries, such as
// one for a title, are ignored.
func retry(content []byte) *agentcli.Failure {
	if len(content) > 64<<10 || !bytes.Contains(content, []byte("error.error=")) {
		return nil
	}
	text := string(content)
	if !strings.Contains(text, "level=ERROR") || !strings.Contains(text, `message="stream error"`) || strings.Contains(text, "small=true") {
		return nil
	}
	_, quoted, _ := strings.Cut(text, "error.error=")
	var message string
	if json.NewDecoder(strings.NewReader(quoted)).Decode(&message) != nil {
		message = quoted // without quotes, or truncated
	}
	return &agentcli.Failure{Message: agentcli.Clip(message, agentcli.MaxMessage)}
}

// Object implements [agentcli.CLI].
func (CLI) Object(object []byte) (events []agentcli.Event, typed bool) {
	var l line
	if !agentcli.Unmarshal(object, &l) {
		return nil, false
	}
	p := &l.Part
	events = []agentcli.Event{{Kind: agentcli.KindUnknown}}
	switch l.Type {
	case "":
		events[0].Marks = agentcli.Idle
	case "step_start":
		events[0] = agentcli.Event{Kind: agentcli.KindStepStarted, Marks: agentcli.Restarts | agentcli.Resumes}
	case "text":
		events[0] = agentcli.Event{Kind: agentcli.KindMessage, Role: "assistant", Text: p.Text}
	case "reasoning":
		events[0] = agentcli.Event{Kind: agentcli.KindReasoning, Text: p.Text}
	case "tool_use":
		events = p.tool()
	case "step_finish":
		events = p.stepEnd()
	case "error":
		events[0] = l.failed()
	}
	events[0].Marks |= agentcli.Recovered
	events[0].Session = agentcli.Clip(l.SessionID, agentcli.MaxID)
	return events, l.Type != ""
}

// stepEnd returns the events of the end of a step: its usage, and the end of the turn if the model
// stopped.
func (p *part) stepEnd() []agentcli.Event {
	u := agentcli.Event{Kind: agentcli.KindUsage, Cost: p.Cost, Marks: agentcli.Final}
	end := agentcli.Event{Kind: agentcli.KindStep, Reason: p.Reason}
	if p.Reason == "stop" {
		end.Kind = agentcli.KindResult
	}
	if t := p.Tokens; t != nil {
		out := t.Output
		out.Plus(t.Reasoning)
		u.Usage = &agented.Usage{
			InputTokens: t.Input.Count(), OutputTokens: out.Count(), CacheReadTokens: t.Cache.Read.Count(), CacheWriteTokens: t.Cache.Write.Count(),
		}
		if p.Cost.V > 0 { // 0 is printed for a model without a known price
			u.Usage.CostUSD = p.Cost.Money()
		}
	}
	return []agentcli.Event{u, end}
}

// tool returns the events of a tool, whose line is printed when it has ended.
func (p *part) tool() []agentcli.Event {
	s := &p.State
	call := agentcli.Event{Kind: agentcli.KindToolCall, ID: p.CallID, Tool: p.Tool, Input: s.Input, Summary: s.Title}
	result := agentcli.Event{Kind: agentcli.KindToolResult, ID: p.CallID, Text: s.Output, Failed: s.Status == "error"}
	if result.Failed && result.Text == "" {
		result.Text = s.Error
	}
	tool, what, denied := p.denied()
	if denied {
		return []agentcli.Event{call, {Kind: agentcli.KindDenied, ID: p.CallID, Tool: tool, Summary: what, Repeated: true}, result}
	}
	if p.Tool != invalid {
		result.Marks = agentcli.Works
	}
	return []agentcli.Event{call, result}
}

// invalid is the tool that answers calls of tools that do not exist.
const invalid = "invalid"

// denied returns the tool that the permission rules denied, and what it was called with.
func (p *part) denied() (tool, what string, denied bool) {
	if p.Tool == invalid {
		var input struct{ Tool, Error string }
		_ = json.Unmarshal(p.State.Input, &input) // an input of another form is ignored
		return input.Tool, "", slices.Contains(tools, input.Tool) && strings.Contains(input.Error, "unavailable tool")
	}
	text := p.State.Error
	withheld := strings.Contains(text, "unavailable tool") && slices.Contains(tools, p.Tool)
	refused := strings.Contains(text, "rejected permission") || strings.Contains(text, "prevents you from using") || strings.Contains(text, "specified a rule")
	return p.Tool, agentcli.InputText(p.State.Input), p.State.Status == "error" && (withheld || refused)
}

// tools are the tools that a permission rule can disable.
var tools = []string{"bash", "write", "edit", "patch", "apply_patch", "multiedit", "webfetch", "websearch", "task", "skill", "external_directory"}

func (l *line) failed() agentcli.Event {
	var x struct {
		Name string `json:"name"`
		Data struct {
			Message    string            `json:"message"`
			StatusCode int               `json:"statusCode"`
			Headers    map[string]string `json:"responseHeaders"`
		} `json:"data"`
	}
	_ = agentcli.Unmarshal(l.Error, &x) // of another type: it is empty
	f := &agentcli.Failure{Status: x.Data.StatusCode, Kind: agentcli.Clip(x.Name, agentcli.MaxID), Message: agentcli.Clip(x.Data.Message, agentcli.MaxMessage)}
	f.Message = cmp.Or(f.Message, f.Kind)
	e := agentcli.Event{
		Kind: agentcli.KindError, Error: f, Text: cmp.Or(agentcli.ErrorText(l.Error), l.Message), HTTPStatus: f.Status,
		Headers: agentcli.RetryHeaders(x.Data.Headers), Marks: agentcli.Final,
	}
	return e
}
