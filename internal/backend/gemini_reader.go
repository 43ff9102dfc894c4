package backend

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// geminiReader reads `gemini --output-format stream-json`. Told to stop, the
// CLI exits 0 without a result line, so the line decides and not the code.
type geminiReader struct {
	read   reading
	final  answer
	other  said
	worked bool
	bad    *failure
	warned string     // message of the last error event
	retry  *failure   // why it said that it tries again; nil: it got on
	names  []toolCall // the last tools called, by id
}

type geminiLine struct {
	Type      string          `json:"type"`
	SessionID string          `json:"session_id"`
	Role      string          `json:"role"`
	Content   string          `json:"content"`
	ToolName  string          `json:"tool_name"`
	ToolID    string          `json:"tool_id"`
	Params    json.RawMessage `json:"parameters"`
	Status    string          `json:"status"`
	Severity  string          `json:"severity"`
	Message   string          `json:"message"`
	Error     struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"error"`
	Stats *struct {
		Input  number `json:"input"`
		All    number `json:"input_tokens"`
		Output number `json:"output_tokens"`
		Cached number `json:"cached"`
	} `json:"stats"`
}

// geminiTools are the tools that an approval mode withholds: a call of one that
// "is not registered" is a denial, a call of an invented one is not.
var geminiTools = []string{"run_shell_command", "write_file", "replace", "edit", "web_fetch", "save_memory", "google_web_search"}

var geminiNoise = []string{
	"Warning:", "Ripgrep is not available", "[STARTUP]", "YOLO mode is enabled", "at ", "}", "{", "Approval mode overridden", "Loaded cached credentials",
	"Data collection is disabled", "Use --list-sessions", "Searched for sessions", "status:", "reason:", "cause:", "code:", "message:", "details:", "retryDelayMs:",
}

func (c *geminiReader) Line(stream agented.Stream, content []byte) {
	var l geminiLine
	if stream != agented.Stdout || !decode(content, &l) || l.Type == "" {
		c.other.add(content)
		if f, is := geminiRetry(content); is {
			c.retry = &f
		}
		return
	}
	c.retry = nil
	switch l.Type {
	case "init":
		c.read.session = clip(l.SessionID, maxID)
	case "message":
		if l.Role == "assistant" || l.Role == "model" {
			c.final.add(l.Content)
		}
	case "tool_use":
		if l.ToolName == "" {
			return
		}
		c.final.reset() // what came before was not the last word
		if len(c.names) == maxDenied {
			c.names = append(c.names[:0], c.names[1:]...)
		}
		c.names = append(c.names, toolCall{clip(l.ToolID, maxID), clip(l.ToolName, maxDeniedAt)})
		c.read.denied.remember(l.ToolID, inputText(l.Params))
	case "tool_result":
		c.toolResult(&l)
	case "error":
		c.warned = clip(l.Message, 4<<10)
	case "result":
		c.end(&l)
	}
}

func (c *geminiReader) toolResult(l *geminiLine) {
	name := ""
	for _, call := range c.names {
		if call.id == clip(l.ToolID, maxID) {
			name = call.what
		}
	}
	if l.Status != "error" {
		c.worked = true
		return
	}
	withheld := l.Error.Type == "tool_not_registered" && slices.Contains(geminiTools, name)
	refused := l.Error.Type == "policy_violation" || strings.Contains(l.Error.Message, "denied by policy") || strings.Contains(l.Error.Message, "requires user confirmation")
	if withheld || refused {
		c.read.denied.add(l.ToolID, name, "")
		return
	}
	c.worked = true
}

func (c *geminiReader) end(l *geminiLine) {
	c.bad = nil
	c.read.good = l.Status == "success"
	if !c.read.good {
		c.bad = &failure{kind: clip(l.Error.Type, maxID), message: clip(l.Error.Message, 4<<10)}
		if c.bad.message == "" {
			c.bad.message = c.warned
		}
	}
	if s := l.Stats; s != nil {
		in := s.Input // without what came from the cache
		if !in.known {
			in = s.All
		}
		c.read.usage = agented.Usage{InputTokens: in.count(), OutputTokens: s.Output.count(), CacheReadTokens: s.Cached.count()}
	}
}

// geminiExits are the exit codes that the CLI gives a meaning; others of 128
// and more are an HTTP status, of which a code holds only the last eight bits.
var geminiExits = map[int]failure{
	41: {status: 401, message: "no way to log in is set up"},
	53: {ours: "stopped because the limit on turns was reached"},
	55: {message: "the folder is not trusted"},
}

func (c *geminiReader) Result(exit agented.Exit, now time.Time) agented.Result {
	c.read.program = "gemini"
	c.read.now = printedAt(exit, now)
	c.read.text = c.final.text()
	if c.read.waiting = c.retry; !byItself(exit) {
		return c.read.ended(exit)
	}
	complaint := c.other.complaint(geminiNoise...)
	bad := c.bad
	if exit.Code != nil && *exit.Code != 0 {
		code := *exit.Code
		known, ok := geminiExits[code]
		switch {
		case ok:
			if complaint != "" && bad == nil {
				known.message = complaint
			} else if bad != nil && bad.message != "" {
				known.message = bad.message
			}
			bad = &known
		case bad != nil && bad.status == 0 && code >= 144:
			for _, status := range []int{400, 401, 403, 404, 429, 500, 502, 503, 504} {
				if status&255 == code {
					bad.status = status
				}
			}
		}
	}
	if bad != nil {
		bad.google = true
	}
	return c.read.finish(exit, bad, c.worked, complaint)
}
