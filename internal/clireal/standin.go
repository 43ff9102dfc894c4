// Package clireal runs the real agent CLIs in its tests. It exports StandIn, a server that
// imitates the model APIs, for other tests.
package clireal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Scenario is the behaviour of a stand-in's answers. It is the first path element of the base
// address: a CLI with the base address http://HOST/tool gets the scenario "tool".
type Scenario string

// The scenarios.
const (
	Text       Scenario = "text"       // one answer: Answer
	Tool       Scenario = "tool"       // a shell command that writes ToolFile, then ToolAnswer
	Write      Scenario = "write"      // the CLI's own tool for writing files writes StandIn.WritePath, then ToolAnswer
	Limited    Scenario = "limited"    // 429 with Retry-After twice, then Answer
	Limit      Scenario = "limit"      // 429 always
	LongLimit  Scenario = "longlimit"  // 429 always, Retry-After an hour
	Refused    Scenario = "refused"    // the key is rejected
	Overloaded Scenario = "overloaded" // 529 or 503 always
	Broken     Scenario = "broken"     // 500 always
	UsageLimit Scenario = "usagelimit" // a subscription's limit is used up
	Quota      Scenario = "quota"      // no credit is left
	Empty      Scenario = "empty"      // an answer without text
	Big        Scenario = "big"        // an answer of StandIn.BigBytes
	Drop       Scenario = "drop"       // the connection is closed in the middle of the answer
	Hang       Scenario = "hang"       // half an answer, and nothing more until the client disconnects
	Once       Scenario = "once"       // Tool, unless the history contains the result of a tool: then ToolAnswer
	Calls      Scenario = "calls"      // calls of StandIn.Calls one after the other, then ToolAnswer
	Cut        Scenario = "cut"        // the connection is closed without an answer
)

// Texts of the stand-in.
const (
	Answer      = "Hello from the stand-in."
	ToolAnswer  = "Done: the file is written."
	ToolFile    = "made-by-agent.txt" // in the CLI's working directory
	ToolContent = "made by the agent"
	ToolCommand = "echo " + ToolContent + " > " + ToolFile
)

// limitedTimes is how often the scenario Limited answers with 429.
const limitedTimes = 2

// StandIn imitates the Anthropic Messages, OpenAI Responses, Gemini and OpenAI-compatible chat
// APIs, one scenario per path prefix. It is for tests: it costs nothing and needs no network.
type StandIn struct {
	Command string // for the scenario Tool; empty means ToolCommand
	// Ask returns the command for the scenario Tool from the last user message, instead of
	// Command; an empty command answers without a tool. Claude only.
	Ask       func(asked string) string
	Calls     []ToolCall    // for the scenario Calls
	WritePath string        // absolute path for the scenario Write
	BigBytes  int           // for the scenario Big; 0 means 5 MiB
	Resets    time.Time     // reset time in UsageLimit; zero means in an hour
	Pause     time.Duration // between the pieces of an answer

	mu       sync.Mutex // guards requests, refused and rules
	requests []Request
	refused  map[string]int
	rules    map[string]*Rule
}

// ToolCall is a call of a CLI's own tool. For Codex, whose only tool is a shell, the command is
// under "command" in Input.
type ToolCall struct {
	Name  string
	Input map[string]any
}

// next returns the call after n results of tools in the scenario Calls, or nil.
func (c *call) next(n int) *ToolCall {
	if c.scenario != Calls || n >= len(c.s.Calls) {
		return nil
	}
	return &c.s.Calls[n]
}

// Rule overrides the scenario for calls with one key.
type Rule struct {
	Scenario Scenario
	After    int       // number of calls for an answer before the rule applies
	Until    time.Time // end of the rule; zero means never

	// Together makes it a limit that this number of agents reach at once, each after the result
	// of its tool: earlier calls are not affected, and each of these calls waits for the others.
	// Lasts sets Until from then on.
	Together int
	Lasts    time.Duration

	met int
	all chan struct{} // closed when that number of calls has arrived
}

// maxTogether bounds how long a call waits for the others of Rule.Together.
const maxTogether = 2 * time.Minute

// Set sets the rule for a key or token.
func (s *StandIn) Set(key string, r Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rules == nil {
		s.rules = map[string]*Rule{}
	}
	r.all = make(chan struct{})
	s.rules[key] = &r
}

// Until returns the end of the rule for a key, or zero if it is not known yet.
func (s *StandIn) Until(key string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rules[key]; r != nil {
		return r.Until
	}
	return time.Time{}
}

// ruled returns the rule that applies to a call with the key, and counts the call. Only calls
// that offer tools count, because a CLI sends other queries too.
func (s *StandIn) ruled(key string, counts bool) (Rule, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rules[key]
	if r == nil || !r.Until.IsZero() && !time.Now().Before(r.Until) {
		return Rule{}, false
	}
	if r.After > 0 {
		if counts {
			r.After--
		}
		return Rule{}, false
	}
	return *r, true
}

// together waits until the number of calls that the rule needs have arrived, and returns the
// rule; it returns false after maxTogether.
func (s *StandIn) together(ctx context.Context, key string, r Rule) (Rule, bool) {
	s.mu.Lock()
	now := s.rules[key]
	if now.met++; now.met == r.Together {
		now.Until = time.Now().Add(r.Lasts)
		close(now.all)
	}
	s.mu.Unlock()
	select {
	case <-r.all:
	case <-ctx.Done():
		return Rule{}, false
	case <-time.After(maxTogether):
		return Rule{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return *now, true
}

// hasWorked reports whether a call contains the result of a tool.
func hasWorked(body []byte) bool {
	return bytes.Contains(body, []byte(`"tool_result"`)) || bytes.Contains(body, []byte(`_call_output"`))
}

// Request is one call of a CLI.
type Request struct {
	Method   string
	Path     string // without the scenario
	Scenario Scenario
	Key      string // key or token of the call
	Header   http.Header
	Body     []byte // at most 4 MiB
	At       time.Time
	Status   int // status of the answer; 0 while it is being sent
}

func (s *StandIn) command() string {
	if s.Command == "" {
		return ToolCommand
	}
	return s.Command
}

func (s *StandIn) resets() int64 {
	if s.Resets.IsZero() {
		return time.Now().Add(time.Hour).Unix()
	}
	return s.Resets.Unix()
}

// Requests returns the calls so far.
func (s *StandIn) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// ServeHTTP answers one call.
func (s *StandIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return
	}
	scenario, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	c := &call{s: s, w: w, r: r, scenario: Scenario(scenario), path: "/" + path, body: body, status: http.StatusOK}
	_ = json.Unmarshal(body, &c.in) // anything but JSON has no fields
	s.mu.Lock()
	number := len(s.requests)
	s.requests = append(s.requests, Request{r.Method, c.path, c.scenario, keyOf(r), r.Header.Clone(), body, time.Now(), 0})
	s.mu.Unlock()
	// Codex offers its tools in an item of the input.
	offers := len(list(c.in, "tools")) > 0 || strings.HasSuffix(c.path, "/responses")
	rule, holds := s.ruled(keyOf(r), r.Method == http.MethodPost && offers)
	if holds && rule.Together > 0 && rule.Until.IsZero() {
		if holds = offers && hasWorked(body); holds {
			rule, holds = s.together(r.Context(), keyOf(r), rule)
		}
	}
	if holds {
		c.scenario, c.until = rule.Scenario, rule.Until
	}
	if c.scenario == Cut {
		panic(http.ErrAbortHandler)
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests[number].Status = c.status
	}()
	switch {
	case strings.HasSuffix(c.path, "/messages/count_tokens"):
		c.json(http.StatusOK, object{"input_tokens": 10})
	case strings.HasSuffix(c.path, "/messages"):
		c.anthropic()
	case strings.HasSuffix(c.path, "/responses") && r.Method == http.MethodGet:
		// Codex tries a WebSocket first; after this answer it uses HTTP at once.
		c.json(http.StatusUpgradeRequired, object{"error": object{"message": "use HTTP"}})
	case strings.HasSuffix(c.path, "/responses"):
		c.responses()
	case strings.HasSuffix(c.path, "/chat/completions"):
		c.chat()
	case strings.Contains(c.path, "enerateContent"):
		c.gemini()
	default:
		c.json(http.StatusNotFound, object{"error": object{"type": "not_found_error", "message": "the stand-in has no " + r.Method + " " + c.path}})
	}
}

type object = map[string]any

// call is one request being answered.
type call struct {
	s        *StandIn
	w        http.ResponseWriter
	r        *http.Request
	scenario Scenario
	path     string
	body     []byte
	in       object
	status   int
	until    time.Time // reset time of the limit for this call; zero means StandIn.Resets
}

// keyOf returns the key or token of a call.
func keyOf(r *http.Request) string {
	for _, name := range []string{"X-Api-Key", "X-Goog-Api-Key"} {
		if key := r.Header.Get(name); key != "" {
			return key
		}
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// resets returns the reset time of the limit as an epoch time.
func (c *call) resets() int64 {
	if !c.until.IsZero() {
		return c.until.Add(time.Second - time.Nanosecond).Unix() // rounded up
	}
	return c.s.resets()
}

func (c *call) json(status int, v any) {
	c.status = status
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_ = json.NewEncoder(c.w).Encode(v) // ignore a disconnected client
}

// refuse reports whether the scenario answers the call with an error, and returns the status.
// Retry-After is already set.
func (c *call) refuse() (status int, yes bool) {
	retry := func(seconds int) { c.w.Header().Set("Retry-After", strconv.Itoa(seconds)) }
	switch c.scenario {
	case Limited:
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		if c.s.refused == nil {
			c.s.refused = map[string]int{}
		}
		if c.s.refused[c.path] >= limitedTimes {
			return 0, false
		}
		c.s.refused[c.path]++
		retry(1)
		return http.StatusTooManyRequests, true
	case Limit:
		retry(1)
		return http.StatusTooManyRequests, true
	case LongLimit:
		retry(3600)
		return http.StatusTooManyRequests, true
	case UsageLimit:
		return http.StatusTooManyRequests, true
	case Refused:
		return http.StatusUnauthorized, true
	case Overloaded:
		return http.StatusServiceUnavailable, true
	case Broken:
		return http.StatusInternalServerError, true
	case Quota:
		return http.StatusPaymentRequired, true
	}
	return 0, false
}

// text returns the scenario's answer in pieces.
func (c *call) text(toolDone bool) []string {
	switch {
	case c.scenario == Empty:
		return nil
	case c.scenario == Big:
		n := c.s.BigBytes
		if n == 0 {
			n = 5 << 20
		}
		pieces := []string{}
		for ; n > 0; n -= 64 << 10 {
			pieces = append(pieces, strings.Repeat("0123456789abcde\n", 4<<10)[:min(n, 64<<10)])
		}
		return pieces
	case toolDone:
		return []string{ToolAnswer}
	}
	half := len(Answer) / 2
	return []string{Answer[:half], Answer[half:]}
}

// wantsTool reports whether the scenario calls a tool whose result is missing.
func (c *call) wantsTool(done bool) bool {
	return (c.scenario == Tool || c.scenario == Write || c.scenario == Once) && !done
}

// stopHere ends an answer that the scenario does not finish, after its first piece, and reports
// whether it did.
func (c *call) stopHere() bool {
	switch c.scenario {
	case Drop:
		panic(http.ErrAbortHandler) // closes the connection before the end
	case Hang:
		<-c.r.Context().Done()
		return true
	}
	return false
}

// event sends one server-sent event; name may be empty.
func (c *call) event(name string, v any) {
	if c.w.Header().Get("Content-Type") == "" {
		c.w.Header().Set("Content-Type", "text/event-stream")
		c.w.Header().Set("Cache-Control", "no-cache")
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // marshalling cannot fail
	}
	if name != "" {
		fmt.Fprintf(c.w, "event: %s\n", name)
	}
	fmt.Fprintf(c.w, "data: %s\n\n", data)
	_ = http.NewResponseController(c.w).Flush()
	if c.s.Pause > 0 {
		select {
		case <-time.After(c.s.Pause):
		case <-c.r.Context().Done():
		}
	}
}

// list returns a field of the object as a list of objects.
func list(in object, field string) []object {
	items, _ := in[field].([]any)
	var out []object
	for _, item := range items {
		if o, ok := item.(object); ok {
			out = append(out, o)
		}
	}
	return out
}

func str(in object, field string) string {
	s, _ := in[field].(string)
	return s
}

// last returns the last element of a list, or nil.
func last(items []object) object {
	if len(items) == 0 {
		return nil
	}
	return items[len(items)-1]
}
