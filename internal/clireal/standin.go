// Package clireal drives the real agent CLIs in its tests. What other tests
// may use of it is StandIn, which answers as the model APIs do.
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

// Scenario is what a stand-in's answers do. It is the first element of the
// address's path: a CLI with the base address http://HOST/tool is served the
// scenario "tool".
type Scenario string

// The scenarios.
const (
	Text       Scenario = "text"       // one answer: Answer
	Tool       Scenario = "tool"       // a shell command that writes ToolFile, then ToolAnswer
	Write      Scenario = "write"      // the CLI's own tool for writing files writes StandIn.WritePath, then ToolAnswer
	Limited    Scenario = "limited"    // 429 with Retry-After twice, then Answer
	Limit      Scenario = "limit"      // 429 always
	LongLimit  Scenario = "longlimit"  // 429 always, Retry-After an hour
	Refused    Scenario = "refused"    // the key is refused
	Overloaded Scenario = "overloaded" // 529 or 503 always
	Broken     Scenario = "broken"     // 500 always
	UsageLimit Scenario = "usagelimit" // a subscription's limit is used up
	Quota      Scenario = "quota"      // no credit is left
	Empty      Scenario = "empty"      // an answer of no text
	Big        Scenario = "big"        // an answer of StandIn.BigBytes
	Drop       Scenario = "drop"       // the connection is cut in the middle of the answer
	Hang       Scenario = "hang"       // half an answer, and nothing more until the client goes
	Once       Scenario = "once"       // Tool, unless a tool has answered anywhere in the history: then ToolAnswer
	Cut        Scenario = "cut"        // the connection is closed without an answer
)

// What the stand-in says and does.
const (
	Answer      = "Hello from the stand-in."
	ToolAnswer  = "Done: the file is written."
	ToolFile    = "made-by-agent.txt" // in the CLI's working directory
	ToolContent = "made by the agent"
	ToolCommand = "echo " + ToolContent + " > " + ToolFile
)

// limitedTimes is how often the scenario Limited refuses.
const limitedTimes = 2

// StandIn answers as the Anthropic Messages, OpenAI Responses, Gemini and
// OpenAI-compatible chat APIs do, one scenario by path prefix. It is made for
// tests: nothing it says costs, and it needs no network.
type StandIn struct {
	Command string // for the scenario Tool; empty is ToolCommand
	// Ask makes the command for the scenario Tool of what the model was asked
	// last, in place of Command; empty: it answers without a tool. Only claude's.
	Ask       func(asked string) string
	WritePath string        // absolute path for the scenario Write
	BigBytes  int           // for the scenario Big; 0 is 5 MiB
	Resets    time.Time     // when UsageLimit says that the limit lifts; zero is in an hour
	Pause     time.Duration // between the pieces of an answer

	mu       sync.Mutex // guards requests, refused and rules
	requests []Request
	refused  map[string]int
	rules    map[string]*Rule
}

// Rule is what the calls with one key get instead of what their address says.
type Rule struct {
	Scenario Scenario
	After    int       // calls for an answer that go as the address says before
	Until    time.Time // from then on they go as the address says again; zero: never

	// Together makes it a limit that so many agents run into at once, each after
	// its tool has answered: the calls before go as the address says, and each
	// of these waits for the others. Lasts gives Until from then on.
	Together int
	Lasts    time.Duration

	met int
	all chan struct{} // closed when so many have met it
}

// maxTogether bounds how long a call waits for the others of Rule.Together.
const maxTogether = 2 * time.Minute

// Set makes a rule for a key or token, in place of the one before.
func (s *StandIn) Set(key string, r Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rules == nil {
		s.rules = map[string]*Rule{}
	}
	r.all = make(chan struct{})
	s.rules[key] = &r
}

// Until is when the rule for a key ends; zero if that is not known yet.
func (s *StandIn) Until(key string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rules[key]; r != nil {
		return r.Until
	}
	return time.Time{}
}

// ruled returns the rule that holds for a call with the key, and counts the
// call. Only those that offer tools count: a CLI asks other things too.
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

// together waits until as many calls as the rule wants have met it, and returns
// the rule as it is then; false when they do not come.
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

// hasWorked reports whether a tool has answered in what a call tells the model.
func hasWorked(body []byte) bool {
	return bytes.Contains(body, []byte(`"tool_result"`)) || bytes.Contains(body, []byte(`_call_output"`))
}

// Request is one call that a CLI made.
type Request struct {
	Method   string
	Path     string // without the scenario
	Scenario Scenario
	Key      string // or token that it came with
	Header   http.Header
	Body     []byte // at most 4 MiB
	At       time.Time
	Status   int // that it was answered with; 0 while it is being answered
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
	_ = json.Unmarshal(body, &c.in) // what is not JSON has no fields
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
		// Codex asks for a WebSocket first; this answer makes it go on with HTTP
		// at once.
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
	until    time.Time // when the limit lifts that this call runs into; zero: StandIn.Resets
}

// keyOf is the key or token that a call came with.
func keyOf(r *http.Request) string {
	for _, name := range []string{"X-Api-Key", "X-Goog-Api-Key"} {
		if key := r.Header.Get(name); key != "" {
			return key
		}
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// resets is when the limit lifts, as an epoch time.
func (c *call) resets() int64 {
	if !c.until.IsZero() {
		return c.until.Add(time.Second - time.Nanosecond).Unix() // not before it does
	}
	return c.s.resets()
}

func (c *call) json(status int, v any) {
	c.status = status
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_ = json.NewEncoder(c.w).Encode(v) // the client went: nothing to do
}

// refuse reports whether the call is one that the scenario answers with an
// error, and gives its status. Retry-After is set already.
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

// text is the scenario's answer, in the pieces that it is sent in.
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

// wantsTool reports whether the scenario calls a tool that has not answered.
func (c *call) wantsTool(done bool) bool {
	return (c.scenario == Tool || c.scenario == Write || c.scenario == Once) && !done
}

// stopHere ends an answer that the scenario does not finish, after its first
// piece; it reports whether it did.
func (c *call) stopHere() bool {
	switch c.scenario {
	case Drop:
		panic(http.ErrAbortHandler) // closes the connection without an end
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
		panic(err) // every answer here can be marshalled
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

// list is the field of the object as a list of objects.
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

// last is the last of a list; nil when it is empty.
func last(items []object) object {
	if len(items) == 0 {
		return nil
	}
	return items[len(items)-1]
}
