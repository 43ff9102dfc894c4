package backend

import (
	"encoding/json"
	"strings"

	"github.com/agented/agented"
)

// Saying is one thing that an agent said or did, as a conversation shows it.
type Saying struct {
	Kind  SayingKind
	ID    string // of a tool's call; its answer has the same
	Tool  string // name of the tool
	Text  string // a piece of an answer or a thought, or what a tool answered; at most MaxSaying bytes of the last
	Input json.RawMessage
	Error bool // the tool failed, or was refused
	Whole bool // of text: it is a whole message, not a piece of one
}

// SayingKind says what a Saying is.
type SayingKind string

// The kinds of saying.
const (
	SaidText   SayingKind = "text"
	SaidThink  SayingKind = "thinking"
	SaidCall   SayingKind = "call"
	SaidAnswer SayingKind = "answer"
)

// MaxSaying bounds what is kept of a tool's input and answer, in bytes each.
const MaxSaying = 16 << 10

// Transcript reads what an agent says and does out of the lines of its CLI. The
// same lines give the same sayings. It keeps bounded memory.
type Transcript struct {
	name    string
	partial bool // pieces of the message that comes have been told
}

// NewTranscript returns a Transcript for a backend.
func NewTranscript(backend string) *Transcript { return &Transcript{name: backend} }

// Line takes one whole line of standard output.
func (t *Transcript) Line(content []byte) []Saying {
	switch t.name {
	case agented.BackendClaude:
		return t.claude(content)
	case agented.BackendCodex:
		return t.codex(content)
	case agented.BackendGemini:
		return t.gemini(content)
	case agented.BackendOpenCode:
		return t.opencode(content)
	case agented.BackendAnthropic:
		return t.claude(content)
	}
	return nil
}

type claudeSaid struct {
	Type   string `json:"type"`
	Parent string `json:"parent_tool_use_id"`
	Event  struct {
		Type  string `json:"type"`
		Delta struct {
			Type     string `json:"type"`
			Text     string `json:"text"`
			Thinking string `json:"thinking"`
		} `json:"delta"`
	} `json:"event"`
	Message struct {
		Content json.RawMessage `json:"content"`
	} `json:"message"`
}

type claudePart struct {
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

func (t *Transcript) claude(line []byte) []Saying {
	var l claudeSaid
	if !decode(line, &l) || l.Parent != "" { // what a sub-agent says is its tool's business
		return nil
	}
	var out []Saying
	switch l.Type {
	case "stream_event":
		switch {
		case l.Event.Type == "message_start":
			t.partial = false
		case l.Event.Delta.Type == "text_delta" && l.Event.Delta.Text != "":
			t.partial = true
			out = append(out, Saying{Kind: SaidText, Text: l.Event.Delta.Text})
		case l.Event.Delta.Type == "thinking_delta" && l.Event.Delta.Thinking != "":
			out = append(out, Saying{Kind: SaidThink, Text: l.Event.Delta.Thinking})
		}
	case "assistant", "user":
		var parts []claudePart
		if json.Unmarshal(l.Message.Content, &parts) != nil {
			return nil
		}
		for _, p := range parts {
			switch p.Type {
			case "text":
				if l.Type == "assistant" && p.Text != "" {
					if t.partial { // its pieces have been told
						out = append(out, Saying{Kind: SaidText, Whole: true, Text: ""})
						continue
					}
					out = append(out, Saying{Kind: SaidText, Whole: true, Text: p.Text})
				}
			case "thinking":
				if !t.partial && p.Thinking != "" {
					out = append(out, Saying{Kind: SaidThink, Whole: true, Text: p.Thinking})
				}
			case "tool_use":
				out = append(out, Saying{Kind: SaidCall, ID: p.ID, Tool: p.Name, Input: boundJSON(p.Input)})
			case "tool_result":
				out = append(out, Saying{Kind: SaidAnswer, ID: p.ToolUseID, Text: contentText(p.Content), Error: p.IsError})
			}
		}
	}
	return out
}

func (t *Transcript) codex(line []byte) []Saying {
	var l struct {
		Type string `json:"type"`
		Item struct {
			ID       string          `json:"id"`
			Type     string          `json:"type"`
			Text     string          `json:"text"`
			Command  json.RawMessage `json:"command"`
			Output   string          `json:"aggregated_output"`
			ExitCode *int            `json:"exit_code"`
			Status   string          `json:"status"`
			Tool     string          `json:"tool"`
			Changes  json.RawMessage `json:"changes"`
			Query    string          `json:"query"`
		} `json:"item"`
	}
	if !decode(line, &l) {
		return nil
	}
	i := &l.Item
	done := l.Type == "item.completed"
	if !done && l.Type != "item.started" {
		return nil
	}
	call := func(tool string, input any) []Saying {
		if done {
			failed := i.ExitCode != nil && *i.ExitCode != 0 || i.Status == "failed"
			return []Saying{{Kind: SaidAnswer, ID: i.ID, Text: clip(i.Output, MaxSaying), Error: failed}}
		}
		text, err := json.Marshal(input)
		if err != nil {
			text = nil
		}
		return []Saying{{Kind: SaidCall, ID: i.ID, Tool: tool, Input: boundJSON(text)}}
	}
	switch i.Type {
	case "agent_message":
		if done && i.Text != "" {
			return []Saying{{Kind: SaidText, Whole: true, Text: i.Text}}
		}
	case "reasoning":
		if done && i.Text != "" {
			return []Saying{{Kind: SaidThink, Whole: true, Text: i.Text}}
		}
	case "command_execution":
		return call("shell", map[string]json.RawMessage{"command": orNullJSON(i.Command)})
	case "file_change":
		return call("file_change", map[string]json.RawMessage{"changes": orNullJSON(i.Changes)})
	case "mcp_tool_call", "web_search":
		return call(strings.TrimSpace(i.Type+" "+i.Tool), map[string]string{"query": i.Query})
	}
	return nil
}

func (t *Transcript) gemini(line []byte) []Saying {
	var l struct {
		Type       string          `json:"type"`
		Role       string          `json:"role"`
		Content    string          `json:"content"`
		Delta      bool            `json:"delta"`
		ToolName   string          `json:"tool_name"`
		ToolID     string          `json:"tool_id"`
		Parameters json.RawMessage `json:"parameters"`
		Status     string          `json:"status"`
		Output     string          `json:"output"`
	}
	if !decode(line, &l) {
		return nil
	}
	switch l.Type {
	case "message":
		if l.Role != "user" && l.Content != "" {
			return []Saying{{Kind: SaidText, Whole: !l.Delta, Text: l.Content}}
		}
	case "tool_use":
		return []Saying{{Kind: SaidCall, ID: l.ToolID, Tool: l.ToolName, Input: boundJSON(l.Parameters)}}
	case "tool_result":
		return []Saying{{Kind: SaidAnswer, ID: l.ToolID, Text: clip(l.Output, MaxSaying), Error: l.Status != "" && l.Status != "success"}}
	}
	return nil
}

func (t *Transcript) opencode(line []byte) []Saying {
	var l struct {
		Type string `json:"type"`
		Part struct {
			Text   string `json:"text"`
			Tool   string `json:"tool"`
			CallID string `json:"callID"`
			State  struct {
				Status string          `json:"status"`
				Input  json.RawMessage `json:"input"`
				Output string          `json:"output"`
				Error  string          `json:"error"`
			} `json:"state"`
		} `json:"part"`
	}
	if !decode(line, &l) {
		return nil
	}
	p := &l.Part
	switch l.Type {
	case "text":
		if p.Text != "" {
			return []Saying{{Kind: SaidText, Whole: true, Text: p.Text}}
		}
	case "reasoning":
		if p.Text != "" {
			return []Saying{{Kind: SaidThink, Whole: true, Text: p.Text}}
		}
	case "tool_use": // told when the tool has answered
		answer := Saying{Kind: SaidAnswer, ID: p.CallID, Text: clip(p.State.Output, MaxSaying), Error: p.State.Status == "error"}
		if answer.Error && answer.Text == "" {
			answer.Text = clip(p.State.Error, MaxSaying)
		}
		return []Saying{{Kind: SaidCall, ID: p.CallID, Tool: p.Tool, Input: boundJSON(p.State.Input)}, answer}
	}
	return nil
}

// boundJSON is a tool's input if it is short enough, and otherwise the
// beginning of it as a string.
func boundJSON(v json.RawMessage) json.RawMessage {
	if len(v) == 0 || !json.Valid(v) {
		return nil
	}
	if len(v) <= MaxSaying {
		return append(json.RawMessage(nil), v...)
	}
	text, err := json.Marshal(map[string]string{"cut": clip(strings.ToValidUTF8(string(v), "\uFFFD"), MaxSaying)})
	if err != nil {
		return nil
	}
	return text
}

func orNullJSON(v json.RawMessage) json.RawMessage {
	if len(v) == 0 {
		return json.RawMessage("null")
	}
	return v
}

// contentText is the text of a tool's answer, which is a string or a list of
// parts.
func contentText(v json.RawMessage) string {
	var text string
	if json.Unmarshal(v, &text) == nil {
		return clip(text, MaxSaying)
	}
	var parts []claudePart
	if json.Unmarshal(v, &parts) != nil {
		return ""
	}
	var b strings.Builder
	for _, p := range parts {
		switch {
		case p.Type == "text":
			b.WriteString(p.Text)
		case p.Type != "":
			b.WriteString("[" + oneLine(clip(p.Type, 40)) + "]")
		}
		if b.Len() > MaxSaying {
			break
		}
	}
	return clip(b.String(), MaxSaying)
}
