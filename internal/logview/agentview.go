package logview

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/term"
)

// maxAgentLine is the maximum size in bytes of a line of CLI output that is reassembled from
// parts. A longer line is skipped with a note.
const maxAgentLine = 32 << 20

// maxTools is the maximum number of tool calls that wait for their results.
const maxTools = 1000

// agentView prints an agent CLI's output for people: messages, one line per tool call, failures,
// and the final result unless a message contained it.
type agentView struct {
	out    io.Writer
	paint  func(colour, s string) string
	cli    string
	script *agentcli.Transcript

	rest    []byte // incomplete line
	tooLong bool
	tools   map[string]string // names of tool calls without a result, by id

	clean   term.Sanitiser
	pieces  strings.Builder // message that is being printed
	last    string          // last message printed
	failure string          // last failure printed
	midLine bool
	err     error
}

func newAgentView(name string, out io.Writer, paint func(colour, s string) string) *agentView {
	return &agentView{out: out, paint: paint, cli: name, script: agentcli.NewTranscript(), tools: map[string]string{}}
}

// line processes one line of standard output or a part of one; more is true if another part of
// the line follows.
func (v *agentView) line(content string, more bool) {
	if len(v.rest)+len(content) > maxAgentLine {
		v.tooLong, v.rest = true, nil
	}
	if !v.tooLong {
		v.rest = append(v.rest, content...)
	}
	if more {
		return
	}
	line, tooLong := v.rest, v.tooLong
	v.rest, v.tooLong = nil, false
	if tooLong {
		v.note(term.Yellow, "a line longer than 32 MiB was skipped; use --raw to print it")
		return
	}
	v.whole(line)
}

func (v *agentView) whole(line []byte) {
	events := registry.Decode(v.cli, line)
	items := v.script.Add(events)
	for _, s := range items {
		v.show(s)
	}
	ending, ended := agentcli.EndingOf(events)
	object := isObject(line)
	ended = ended && object // an ending among other text is shown with it
	switch {
	case ended && ending.Failed:
		v.endMessage()
		if ending.Text != "" && ending.Text != v.failure {
			v.failure = ending.Text
			v.note(term.Red, "✗ "+ending.Text)
		}
	case ended:
		v.endMessage()
		if text := strings.TrimSpace(ending.Text); text != "" && text != strings.TrimSpace(v.last) {
			v.message(ending.Text)
			v.endMessage()
		}
	case len(items) > 0:
	case object:
		// Events that are not meant for people are skipped.
	case len(strings.TrimSpace(string(line))) > 0:
		v.endMessage()
		v.write(v.clean.Clean(string(line)) + "\n")
	}
}

func isObject(line []byte) bool {
	text := strings.TrimSpace(string(line))
	return strings.HasPrefix(text, "{") && json.Valid([]byte(text))
}

func (v *agentView) show(s agentcli.Item) {
	switch s.Kind {
	case agentcli.ItemText:
		if s.Whole && s.Text != "" {
			v.endMessage()
		}
		v.message(s.Text)
		if s.Whole {
			v.endMessage()
		}
	case agentcli.ItemToolCall:
		v.endMessage()
		if len(v.tools) < maxTools {
			v.tools[s.ID] = s.Tool
		}
		v.note(term.Faint, strings.TrimSpace("• "+s.Tool+" "+toolTarget(s.Input)))
	case agentcli.ItemToolResult:
		tool := v.tools[s.ID]
		delete(v.tools, s.ID)
		if s.Error {
			v.endMessage()
			text, _, _ := strings.Cut(strings.TrimSpace(s.Text), "\n")
			v.note(term.Red, strings.TrimSuffix("✗ "+strings.TrimSpace(tool+" failed")+": "+text, ": "))
		}
	}
}

// message prints a piece of a message.
func (v *agentView) message(text string) {
	if text == "" {
		return
	}
	v.pieces.WriteString(text)
	v.write(v.clean.Clean(text))
}

// endMessage terminates the message that is being printed.
func (v *agentView) endMessage() {
	if v.midLine {
		v.write("\n")
	}
	if v.pieces.Len() > 0 {
		v.last = v.pieces.String()
		v.pieces.Reset()
	}
	v.clean = term.Sanitiser{}
}

// note prints an event of the turn on a line of its own. A tool call is shortened to fit the
// line; a failure is printed in full.
func (v *agentView) note(colour, text string) {
	if v.midLine {
		v.write("\n")
	}
	v.write(v.paint(colour, term.Indented(text, 2)) + "\n")
}

func (v *agentView) write(s string) {
	if s == "" || v.err != nil {
		return
	}
	v.midLine = !strings.HasSuffix(s, "\n")
	_, v.err = io.WriteString(v.out, s)
}

// end flushes the view at the end of the output.
func (v *agentView) end() {
	if len(v.rest) > 0 {
		v.line("", false)
	}
	v.endMessage()
}

// targets lists the input fields of a tool that name what the call works on, best first.
var targets = []string{"command", "cmd", "file_path", "filePath", "path", "notebook_path", "pattern", "query", "url", "skill", "description", "prompt", "name"}

// toolTarget returns what a tool call works on, shortened to one line.
func toolTarget(input json.RawMessage) string {
	var fields map[string]any
	if json.Unmarshal(input, &fields) != nil || len(fields) == 0 {
		return ""
	}
	for _, name := range targets {
		if text := targetText(fields[name]); text != "" {
			return text
		}
	}
	if changes, ok := fields["changes"].([]any); ok {
		var paths []string
		for _, c := range changes {
			if m, ok := c.(map[string]any); ok {
				paths = append(paths, targetText(m["path"]))
			}
		}
		if text := strings.Join(paths, ", "); text != "" {
			return term.Cell(text)
		}
	}
	return term.Cell(term.Compact(fields))
}

// targetText returns a string, or the elements of a list of strings, on one line.
func targetText(v any) string {
	switch v := v.(type) {
	case string:
		return term.Cell(strings.Join(strings.FieldsFunc(v, unicode.IsSpace), " "))
	case []any:
		var parts []string
		for _, p := range v {
			parts = append(parts, fmt.Sprint(p))
		}
		return targetText(strings.Join(parts, " "))
	}
	return ""
}
