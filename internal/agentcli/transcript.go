package agentcli

import (
	"cmp"
	"encoding/json"
	"strings"
)

// Item is one message, thought, tool call or tool result of a transcript.
type Item struct {
	Kind  ItemKind
	ID    string // id of a tool call and of its result
	Tool  string // name of the tool
	Text  string // a piece of an answer or a thought, or the result of a tool; at most MaxItem bytes of the last
	Input json.RawMessage
	Error bool // the tool failed or was denied
	Whole bool // a text is a whole message instead of a piece
}

// ItemKind is the kind of a Item.
type ItemKind string

// The kinds of Item.
const (
	ItemText       ItemKind = "text"
	ItemThinking   ItemKind = "thinking"
	ItemToolCall   ItemKind = "call"
	ItemToolResult ItemKind = "answer"
)

// MaxItem is the maximum size kept of a tool's input and result, in bytes each.
const MaxItem = 16 << 10

// Transcript extracts messages and tool calls from the events of its CLI. The same events give
// the same items. Its memory is bounded.
type Transcript struct {
	partial bool // pieces of the current message have been returned
}

// NewTranscript returns a Transcript of one attempt.
func NewTranscript() *Transcript { return &Transcript{} }

// Add processes the events of one line of standard output.
func (t *Transcript) Add(events []Event) []Item {
	var out []Item
	for i := range events {
		if s, ok := t.item(&events[i]); ok {
			out = append(out, s)
		}
	}
	return out
}

func (t *Transcript) item(e *Event) (s Item, ok bool) {
	if e.SubAgent || e.Has(Lenient) { // messages of a sub-agent are not shown
		return s, false
	}
	switch e.Kind {
	case KindDelta:
		return t.piece(e)
	case KindMessage:
		if e.Role == "user" || e.Text == "" {
			return s, false
		}
		if t.partial { // its pieces have been returned
			return Item{Kind: ItemText, Whole: true}, true
		}
		return Item{Kind: ItemText, Whole: !e.Piece, Text: e.Text}, true
	case KindReasoning:
		return Item{Kind: ItemThinking, Whole: true, Text: e.Text}, !t.partial && e.Text != ""
	case KindToolCall:
		return Item{Kind: ItemToolCall, ID: e.ID, Tool: e.Tool, Input: boundJSON(e.Input)}, !e.Remote && !e.Update
	case KindToolResult:
		return Item{Kind: ItemToolResult, ID: e.ID, Text: resultText(e), Error: e.Failed}, !e.Remote
	}
	return s, false
}

// piece processes a piece of a message that is being written.
func (t *Transcript) piece(e *Event) (s Item, ok bool) {
	switch e.Role {
	case DeltaStart:
		t.partial = false
	case DeltaText:
		t.partial = true
		return Item{Kind: ItemText, Text: e.Text}, true
	case DeltaReasoning:
		return Item{Kind: ItemThinking, Text: e.Text}, true
	}
	return s, false
}

// resultText returns the text of a tool's result.
func resultText(e *Event) string {
	if len(e.Parts) == 0 {
		return Clip(e.Text, MaxItem)
	}
	var b strings.Builder
	for _, part := range e.Parts {
		b.WriteString(part)
		if b.Len() > MaxItem {
			break
		}
	}
	return Clip(b.String(), MaxItem)
}

// Ending is what a CLI printed about the end of its turn, or about an error.
type Ending struct {
	Text   string // the result, or the error message
	Failed bool
}

// EndingOf returns the end of a turn or an error among the events of one line. ok is false if there
// is none.
func EndingOf(events []Event) (out Ending, ok bool) {
	for i := range events {
		e := &events[i]
		switch {
		case e.Has(Untyped):
		case e.Kind == KindResult && (e.Failed || e.Has(Restarts)):
			out, ok = Ending{Text: cmp.Or(e.Text, e.Detail), Failed: e.Failed && !e.Has(Unstated)}, true
			if out.Text == "" && out.Failed {
				out.Text = e.Reason
			}
		case e.Kind == KindError, e.Kind == KindRetry && e.Has(Final):
			out, ok = Ending{Text: e.Text, Failed: true}, true
		}
	}
	return out, ok
}

// boundJSON returns a tool's input if it is short enough, otherwise its beginning as a string.
func boundJSON(v json.RawMessage) json.RawMessage {
	if len(v) == 0 || !json.Valid(v) {
		return nil
	}
	if len(v) <= MaxItem {
		return append(json.RawMessage(nil), v...)
	}
	text, err := json.Marshal(map[string]string{"cut": Clip(strings.ToValidUTF8(string(v), "\uFFFD"), MaxItem)})
	if err != nil {
		return nil
	}
	return text
}
