package anthropicapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
)

// Limits of a stream.
const (
	maxEvent  = 1 << 20 // bytes of one event's data
	maxAnswer = 8 << 20 // bytes of an answer
)

var errTooMuch = errors.New("the event is too large")

// Error makes a failure in the stream an error.
func (f *failure) Error() string { return f.message }

// events reads server-sent events and passes on the data of each. Its memory is bounded. An
// incomplete event at the end is ignored.
func events(r io.Reader, take func(data []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var data, line []byte
	for {
		piece, err := in.ReadSlice('\n')
		line = append(line, piece...)
		if len(line) > maxEvent+64 {
			return errTooMuch
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		text := bytes.TrimRight(line, "\r\n")
		line = line[:0]
		if len(text) == 0 {
			if len(data) > 0 {
				if err := take(data); err != nil {
					return err
				}
			}
			data = data[:0]
			continue
		}
		value, is := bytes.CutPrefix(text, []byte("data:"))
		if !is {
			continue // the type is also in the data; comments and ids are ignored
		}
		if len(data) > 0 {
			data = append(data, '\n')
		}
		data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
		if len(data) > maxEvent {
			return errTooMuch
		}
	}
}

// answer is the part of the answer received so far.
type answer struct {
	id    string
	model string
	text  string
	buf   []byte
	stop  string
	usage map[string]json.RawMessage
	ended bool // the stream is complete
}

// apply processes one event and reports whether it is a piece of the answer.
func (g *answer) apply(data []byte) (piece bool, err error) {
	var e struct {
		Type    string `json:"type"`
		Message struct {
			ID    string                     `json:"id"`
			Model string                     `json:"model"`
			Usage map[string]json.RawMessage `json:"usage"`
		} `json:"message"`
		Delta struct {
			Type string `json:"type"`
			Text string `json:"text"`
			Stop string `json:"stop_reason"`
		} `json:"delta"`
		Usage map[string]json.RawMessage `json:"usage"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		var odd *json.UnmarshalTypeError
		if !errors.As(err, &odd) {
			return false, nil // not from the API but from a proxy
		}
	}
	switch e.Type {
	case "message_start":
		g.id = cut(e.Message.ID, 200)
		if e.Message.Model != "" {
			g.model = cut(e.Message.Model, 200)
		}
		g.count(e.Message.Usage)
	case "content_block_delta":
		if e.Delta.Type == "text_delta" {
			if len(g.buf)+len(e.Delta.Text) > maxAnswer {
				return false, errTooMuch
			}
			g.buf = append(g.buf, e.Delta.Text...)
			g.text = "…" // there is some thinking; the text is set at the end
		}
	case "content_block_start", "content_block_stop":
	case "message_delta":
		if e.Delta.Stop != "" {
			g.stop = cut(e.Delta.Stop, 100)
		}
		g.count(e.Usage)
	case "message_stop":
		g.ended, g.text = true, string(g.buf)
	case "error":
		f := &failure{kind: cut(e.Error.Type, 100), message: cut(e.Error.Message, 2<<10)}
		if f.message == "" {
			f.message = "the API aborted its answer"
		}
		switch f.kind {
		case "overloaded_error":
			f.status, f.again = 529, true
		case "rate_limit_error":
			f.status, f.again = 429, true
		case "api_error", "timeout_error", "":
			f.status, f.again = 500, true
		}
		return false, f
	default:
		return false, nil // pings and unknown events
	}
	return true, nil
}

// count records the usage; later counts replace earlier ones.
func (g *answer) count(usage map[string]json.RawMessage) {
	if g.usage == nil {
		g.usage = map[string]json.RawMessage{}
	}
	for _, name := range []string{"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"} {
		if v, ok := usage[name]; ok && len(v) < 20 {
			maps.Copy(g.usage, map[string]json.RawMessage{name: v})
		}
	}
}

// message returns the line of the complete answer.
func (g *answer) message(session string) object {
	content := []object{}
	if g.text != "" {
		content = append(content, object{"type": "text", "text": g.text})
	}
	return object{
		"type": "assistant", "session_id": session, "parent_tool_use_id": nil,
		"message": object{
			"id": g.id, "type": "message", "role": "assistant", "model": g.model, "content": content, "stop_reason": g.stop, "usage": g.usage,
		},
	}
}
