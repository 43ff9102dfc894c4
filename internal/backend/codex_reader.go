package backend

import (
	"strings"
	"time"

	"github.com/agented/agented"
)

// codexReader reads `codex exec --json`. It has no word for a tool that the
// sandbox refused: that shows at most as a command's exit code.
type codexReader struct {
	read   reading
	final  answer
	other  said
	worked bool
	bad    *failure // of the turn
	last   *failure // last error event; most are retries
	again  *failure // the same, unless it got on since
}

type codexLine struct {
	Type     string `json:"type"`
	ThreadID string `json:"thread_id"`
	Message  string `json:"message"` // of an error
	Item     struct {
		ID      string `json:"id"`
		Type    string `json:"type"`
		Text    string `json:"text"`
		Message string `json:"message"`
		Command string `json:"command"`
		Output  string `json:"aggregated_output"`
		Status  string `json:"status"`
	} `json:"item"`
	Usage *struct {
		Input      number `json:"input_tokens"`
		Cached     number `json:"cached_input_tokens"`
		CacheWrite number `json:"cache_write_input_tokens"`
		Output     number `json:"output_tokens"`
	} `json:"usage"`
	Error struct {
		Message string `json:"message"`
	} `json:"error"`
}

// codexNoise starts the lines of standard error that mean nothing.
var codexNoise = []string{"Reading additional input from stdin", "Reading prompt from stdin", "WARNING: proceeding", "For more information", "Usage:", "tip:"}

func (c *codexReader) Line(stream agented.Stream, content []byte) {
	var l codexLine
	if stream != agented.Stdout || !decode(content, &l) || l.Type == "" {
		c.other.add(content)
		c.refusal(clip(string(content), 4<<10))
		return
	}
	switch l.Type {
	case "thread.started":
		c.read.session = clip(l.ThreadID, maxID)
	case "turn.started":
		c.bad, c.read.good = nil, false
	case "item.started", "item.updated", "item.completed":
		if l.Item.Type != "error" {
			c.again = nil
		}
		c.item(&l)
	case "error":
		c.last = &failure{message: clip(l.Message, 4<<10)}
		c.again = c.last
	case "turn.completed":
		c.bad, c.last, c.again = nil, nil, nil
		c.read.good = true
		if u := l.Usage; u != nil {
			// Its input counts what came from the cache too; ours never does.
			if u.Input.known && u.Cached.known && u.Cached.v <= u.Input.v {
				u.Input.v -= u.Cached.v
			}
			c.read.usage = agented.Usage{
				InputTokens: u.Input.count(), OutputTokens: u.Output.count(),
				CacheReadTokens: u.Cached.count(), CacheWriteTokens: u.CacheWrite.count(),
			}
			c.read.usage.CumulativeSession = c.read.usage.Known()
		}
	case "turn.failed":
		c.bad = &failure{message: clip(l.Error.Message, 4<<10)}
	}
}

// refusal looks for a refused tool in the CLI's own log on standard error.
func (c *codexReader) refusal(line string) {
	_, text, found := strings.Cut(line, "codex_core::tools::router: error=")
	if !found {
		return
	}
	if why, is := strings.CutPrefix(text, "patch rejected: "); is {
		c.read.denied.add("", "apply_patch", why)
	} else if strings.Contains(text, "reject command") {
		c.read.denied.add("", "exec_command", text)
	}
}

func (c *codexReader) item(l *codexLine) {
	switch l.Item.Type {
	case "agent_message":
		if l.Type == "item.completed" {
			c.final.reset()
			c.final.add(l.Item.Text)
		}
	case "reasoning", "error", "todo_list", "":
		// An error item is a warning, such as a model without metadata.
	default:
		c.worked = true
		declined := l.Item.Status == "declined" || l.Item.Status == "rejected"
		// The sandbox makes all but its writable places read-only, and the
		// command is what hears of it.
		stopped := l.Item.Status == "failed" && strings.Contains(l.Item.Output, "Read-only file system")
		if declined || stopped {
			c.read.denied.add(l.Item.ID, l.Item.Type, l.Item.Command)
		}
	}
}

func (c *codexReader) Result(exit agented.Exit, now time.Time) agented.Result {
	c.read.program = "codex"
	c.read.now = printedAt(exit, now)
	c.read.text = c.final.text()
	if c.read.waiting = c.again; !byItself(exit) {
		return c.read.ended(exit)
	}
	bad := c.bad
	if bad == nil && !c.read.good {
		bad = c.last
	}
	return c.read.finish(exit, bad, c.worked, c.other.complaint(codexNoise...))
}
