package gemini

import (
	"encoding/json"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// line is a line of `gemini --output-format stream-json`. After SIGTERM the CLI exits with code 0 and
// prints no result line, so the result line decides, not the exit code.
type line struct {
	Type      string          `json:"type"`
	SessionID string          `json:"session_id"`
	Model     string          `json:"model"`
	Role      string          `json:"role"`
	Content   string          `json:"content"`
	Delta     bool            `json:"delta"`
	ToolName  string          `json:"tool_name"`
	ToolID    string          `json:"tool_id"`
	Params    json.RawMessage `json:"parameters"`
	Output    string          `json:"output"`
	Status    string          `json:"status"`
	Message   string          `json:"message"`
	Error     json.RawMessage `json:"error"`
	Stats     *struct {
		Input    agentcli.Number `json:"input"`
		All      agentcli.Number `json:"input_tokens"`
		Output   agentcli.Number `json:"output_tokens"`
		Cached   agentcli.Number `json:"cached"`
		Duration agentcli.Number `json:"duration_ms"`
	} `json:"stats"`
}

// failure is the field error of a line.
type failure struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

func (l *line) failure() (f failure) {
	_ = agentcli.Unmarshal(l.Error, &f) // of another type: it is empty
	return f
}

// Text implements [agentcli.CLI]. It finds "Attempt 1 failed: …. Retrying after 5993ms...", whose end
// may be on the next line.
func (CLI) Text(_ agented.Stream, content []byte) []agentcli.Event {
	out := []agentcli.Event{agentcli.Plain(content)}
	text := agentcli.OneLine(agentcli.Clip(string(content[:min(len(content), 8<<10)]), agentcli.MaxMessage))
	if strings.HasPrefix(text, "Attempt ") && strings.Contains(agentcli.Clip(text, 40), " failed") {
		out = append(out, agentcli.Event{Kind: agentcli.KindRetry, Text: text, Error: &agentcli.Failure{Message: text, Google: true}})
	}
	return out
}

// Object implements [agentcli.CLI].
func (CLI) Object(object []byte) (events []agentcli.Event, typed bool) {
	var l line
	if !agentcli.Unmarshal(object, &l) {
		return nil, false
	}
	e := agentcli.Event{Kind: agentcli.KindUnknown}
	switch l.Type {
	case "init":
		e = agentcli.Event{Kind: agentcli.KindStarted, Session: agentcli.Clip(l.SessionID, agentcli.MaxID), Model: l.Model}
	case "message":
		e = agentcli.Event{Kind: agentcli.KindMessage, Role: l.Role, Text: l.Content, Piece: l.Delta, Marks: agentcli.Resumes}
		if l.Role == "model" {
			e.Role = "assistant"
		}
	case "tool_use":
		e = agentcli.Event{Kind: agentcli.KindToolCall, ID: l.ToolID, Tool: l.ToolName, Input: l.Params, Marks: agentcli.Opens | agentcli.Resumes}
		if l.ToolName != "" {
			e.Marks |= agentcli.Restarts // the earlier message was not the last one
		}
	case "tool_result":
		e = l.toolResult()
	case "error":
		e = agentcli.Event{Kind: agentcli.KindError, Text: l.errorText(), Error: &agentcli.Failure{Message: agentcli.Clip(l.Message, agentcli.MaxMessage)}}
	case "result":
		e = l.result()
	}
	e.Marks |= agentcli.Recovered
	return []agentcli.Event{e}, l.Type != ""
}

// errorText returns the message of an error for people.
func (l *line) errorText() string {
	if text := agentcli.ErrorText(l.Error); text != "" {
		return text
	}
	return l.Message
}

func (l *line) toolResult() agentcli.Event {
	e := agentcli.Event{
		Kind: agentcli.KindToolResult, ID: l.ToolID, Text: l.Output, Failed: l.Status != "" && l.Status != "success",
		Marks: agentcli.Works | agentcli.Closes,
	}
	if l.Status != "error" {
		return e
	}
	f := l.failure()
	e.Detail = f.Message
	e.Refused = f.Type == "policy_violation" || strings.Contains(f.Message, "denied by policy") || strings.Contains(f.Message, "requires user confirmation")
	if e.Refused || f.Type == "tool_not_registered" {
		e.Marks |= agentcli.Withheld
	}
	return e
}

func (l *line) result() agentcli.Event {
	e := agentcli.Event{Kind: agentcli.KindResult, Failed: l.Status != "success"}
	if e.Failed {
		f := l.failure()
		e.Text = l.errorText()
		e.Error = &agentcli.Failure{Kind: agentcli.Clip(f.Type, agentcli.MaxID), Message: agentcli.Clip(f.Message, agentcli.MaxMessage), Google: true}
	}
	if s := l.Stats; s != nil {
		in := s.Input // without cached tokens
		if !in.Known {
			in = s.All
		}
		e.Usage = &agented.Usage{InputTokens: in.Count(), OutputTokens: s.Output.Count(), CacheReadTokens: s.Cached.Count()}
		e.DurationMS = s.Duration.Count()
	}
	return e
}
