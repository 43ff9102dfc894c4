package codex

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// line is a line of `codex exec --json`. The format has no event for a tool that the sandbox denied;
// a denial is visible at most in a command's exit code.
type line struct {
	Type     string          `json:"type"`
	ThreadID string          `json:"thread_id"`
	Message  string          `json:"message"` // of an error
	Item     item            `json:"item"`
	Error    json.RawMessage `json:"error"`
	Usage    *struct {
		Input      agentcli.Number `json:"input_tokens"`
		Cached     agentcli.Number `json:"cached_input_tokens"`
		CacheWrite agentcli.Number `json:"cache_write_input_tokens"`
		Output     agentcli.Number `json:"output_tokens"`
	} `json:"usage"`
}

type item struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Message   string          `json:"message"`
	Command   json.RawMessage `json:"command"`
	Output    string          `json:"aggregated_output"`
	ExitCode  *int            `json:"exit_code"`
	Status    string          `json:"status"`
	Server    string          `json:"server"`
	Tool      string          `json:"tool"`
	Changes   json.RawMessage `json:"changes"`
	Query     string          `json:"query"`
	Arguments json.RawMessage `json:"arguments"`
	Result    struct {
		Content json.RawMessage `json:"content"`
	} `json:"result"`
	Error json.RawMessage `json:"error"`
	Items []struct {
		Text      string `json:"text"`
		Completed bool   `json:"completed"`
	} `json:"items"`
}

// retrying matches the message of an error that is not the end.
var retrying = regexp.MustCompile(`(?i)reconnect|retry|429|limit`)

// Text implements [agentcli.CLI]. The CLI's own log on standard error reports tools that were denied.
func (CLI) Text(_ agented.Stream, content []byte) []agentcli.Event {
	out := []agentcli.Event{agentcli.Plain(content)}
	_, text, found := strings.Cut(agentcli.Clip(string(content[:min(len(content), 8<<10)]), agentcli.MaxMessage), "codex_core::tools::router: error=")
	if !found {
		return out
	}
	denied := agentcli.Event{Kind: agentcli.KindDenied, Marks: agentcli.Idle}
	if why, is := strings.CutPrefix(text, "patch rejected: "); is {
		denied.Tool, denied.Summary = "apply_patch", why
	} else if strings.Contains(text, "reject command") {
		denied.Tool, denied.Summary = "exec_command", text
	} else {
		return out
	}
	return append(out, denied)
}

// Object implements [agentcli.CLI].
func (CLI) Object(object []byte) (events []agentcli.Event, typed bool) {
	var l line
	if !agentcli.Unmarshal(object, &l) {
		return nil, false
	}
	typed = l.Type != ""
	e := agentcli.Event{Kind: agentcli.KindUnknown}
	switch l.Type {
	case "thread.started":
		e = agentcli.Event{Kind: agentcli.KindStarted, Session: agentcli.Clip(l.ThreadID, agentcli.MaxID)}
	case "turn.started":
		e = agentcli.Event{Kind: agentcli.KindTurn, Marks: agentcli.Resumes}
	case "turn.completed":
		e = l.completed()
	case "turn.failed":
		var failed struct {
			Message string `json:"message"`
		}
		_ = agentcli.Unmarshal(l.Error, &failed) // of another type: there is no message
		e = agentcli.Event{
			Kind: agentcli.KindResult, Failed: true, Text: l.errorText(), Error: &agentcli.Failure{Message: agentcli.Clip(failed.Message, agentcli.MaxMessage)},
		}
	case "error":
		// Most are retries, but the last one decides if there is no result.
		e = agentcli.Event{
			Kind: agentcli.KindRetry, Text: l.errorText(), Error: &agentcli.Failure{Message: agentcli.Clip(l.Message, agentcli.MaxMessage)},
			Failed: !retrying.MatchString(l.Message), Marks: agentcli.Final,
		}
	case "item.started", "item.updated", "item.completed":
		return l.item(), true
	}
	return []agentcli.Event{e}, typed
}

// errorText returns the message of an error for people.
func (l *line) errorText() string {
	if text := agentcli.ErrorText(l.Error); text != "" {
		return text
	}
	return l.Message
}

func (l *line) completed() agentcli.Event {
	e := agentcli.Event{Kind: agentcli.KindResult, Marks: agentcli.Recovered}
	if u := l.Usage; u != nil {
		// Codex includes cached tokens in its input; Agented does not.
		if u.Input.Known && u.Cached.Known && u.Cached.V <= u.Input.V {
			u.Input.V -= u.Cached.V
		}
		e.Usage = &agented.Usage{
			InputTokens: u.Input.Count(), OutputTokens: u.Output.Count(),
			CacheReadTokens: u.Cached.Count(), CacheWriteTokens: u.CacheWrite.Count(),
		}
		e.Usage.CumulativeSession = e.Usage.Known()
	}
	return e
}

// item returns the events of an item, which is printed when it begins, changes and ends.
func (l *line) item() []agentcli.Event {
	i := &l.Item
	e := agentcli.Event{Kind: agentcli.KindUnknown}
	done := l.Type == "item.completed"
	switch {
	case i.Type == "error" && done:
		// A warning, such as missing metadata of a model.
		return []agentcli.Event{{Kind: agentcli.KindWarning, ID: i.ID, Text: i.Message, Marks: agentcli.Idle | agentcli.Closes}}
	case i.Type == "agent_message" && done:
		e = agentcli.Event{Kind: agentcli.KindMessage, Role: "assistant", Text: i.Text, Marks: agentcli.Restarts}
	case i.Type == "reasoning" && done:
		e = agentcli.Event{Kind: agentcli.KindReasoning, Text: i.Text}
	case i.Type == "todo_list":
		e = agentcli.Event{Kind: agentcli.KindNote, Text: i.plan()}
	case i.Type == "agent_message", i.Type == "reasoning", i.Type == "error", i.Type == "":
	default:
		e = i.tool(done)
		e.Update = l.Type == "item.updated"
		e.Marks |= agentcli.Works
	}
	e.ID = i.ID
	switch l.Type {
	case "item.started":
		e.Marks |= agentcli.Opens | agentcli.Resumes
	case "item.completed":
		e.Marks |= agentcli.Closes
	}
	if i.Type != "error" {
		e.Marks |= agentcli.Recovered
	}
	out := []agentcli.Event{e}
	if e.Has(agentcli.Works) && i.denied() {
		out = append(out, agentcli.Event{Kind: agentcli.KindDenied, ID: i.ID, Tool: i.Type, Summary: i.command(), Repeated: true})
	}
	return out
}

// denied reports whether the item is a tool that was not run, or a command that the sandbox stopped:
// it makes everything else read-only, and only the command receives the error.
func (i *item) denied() bool {
	return i.Status == "declined" || i.Status == "rejected" || i.Status == "failed" && strings.Contains(i.Output, "Read-only file system")
}

func (i *item) command() string {
	var text string
	_ = json.Unmarshal(i.Command, &text) // a list of words is not shown
	return text
}

// plan returns the items of a list of things to do, one a line.
func (i *item) plan() string {
	var out []string
	for _, x := range i.Items {
		mark := "☐ "
		if x.Completed {
			mark = "☑ "
		}
		out = append(out, mark+x.Text)
	}
	return strings.Join(out, "\n")
}

// tool returns the event of a tool. Other items that are not known to be text are tools, too.
func (i *item) tool(done bool) agentcli.Event {
	e := agentcli.Event{Kind: agentcli.KindToolCall}
	if done {
		e = agentcli.Event{
			Kind: agentcli.KindToolResult, Text: i.Output, ExitCode: i.ExitCode,
			Failed: i.ExitCode != nil && *i.ExitCode != 0 || i.Status == "failed", Refused: i.Status == "declined",
		}
	}
	switch i.Type {
	case "command_execution":
		e.Tool, e.Title, e.Input = "shell", "Command", agentcli.ObjectOf("command", i.Command)
	case "file_change":
		e.Tool, e.Title, e.Input = "file_change", "File change", agentcli.ObjectOf("changes", i.Changes)
		e.Detail = i.Status
	case "mcp_tool_call", "web_search":
		query, _ := json.Marshal(i.Query) // marshalling a string cannot fail
		e.Tool, e.Input = strings.TrimSpace(i.Type+" "+i.Tool), agentcli.ObjectOf("query", query)
		e.Title = "Web search"
		if i.Type == "mcp_tool_call" {
			e.Title, e.Arguments = i.Server+"."+i.Tool, i.Arguments
			e.Detail = strings.Join(agentcli.ContentParts(i.Result.Content), "\n")
			if text := agentcli.ErrorText(i.Error); text != "" {
				e.Detail = text
			}
		}
	default:
		return agentcli.Event{Kind: agentcli.KindUnknown}
	}
	if !done {
		e.Detail = ""
	}
	return e
}
