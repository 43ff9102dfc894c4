// Package anthropicapi sends one prompt to Anthropic's Messages API, without tools, and prints the answer
// as events in the format of Claude Code.
package anthropicapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// DefaultModel is used if no model is set. It is an alias from the public documentation that the
// price list contains.
const DefaultModel = "claude-sonnet-4-5"

// DefaultMaxTokens is the default limit of an answer. All current models of the 4 family support
// it; the smallest limit among them is 32 000.
const DefaultMaxTokens = 32000

// Direct is the base URL of the API.
const Direct = "https://api.anthropic.com"

// Limits of retries. Longer waits are left to the server.
const (
	maxTries = 6
	maxWait  = time.Minute
	maxWaits = 3 * time.Minute
)

// Options configures one request.
type Options struct {
	Session string // id of the conversation
	Resume  bool   // the conversation must exist and is continued
	Dir     string // folder of the conversations
	Pieces  bool   // also print partial messages

	Model     string // empty means DefaultModel
	MaxTokens int    // 0 means DefaultMaxTokens
	System    string
	Prompt    string

	Key, Token string // one of them must be set
	Base       string // address of the API or of a proxy; empty means Direct
	Direct     string // address of the API itself; empty means Direct

	Version  string // of this program
	Out, Err io.Writer
	Client   *http.Client                               // nil uses a client of its own
	Now      func() time.Time                           // nil means time.Now
	Wait     func(context.Context, time.Duration) error // waits for a duration; nil uses a timer
}

// caller is one request in progress.
type caller struct {
	Options
	base    string // current base URL
	history *history
	began   time.Time
	failed  error // first error of a write to Out
}

// Run sends the prompt and prints the answer. It returns the exit code of the program: 0 if the
// answer is complete. Errors are in the last printed line.
func Run(ctx context.Context, o Options) int {
	a := newAsker(o)
	if f := a.begin(); f != nil {
		return a.end(f)
	}
	defer a.history.close()
	a.print(object{
		"type": "system", "subtype": "init", "session_id": a.Session, "model": a.Model, "tools": []string{}, "mcp_servers": []string{},
		"agented_version": a.Version, "apiKeySource": a.keySource(),
	})
	if a.Key == "" && a.Token == "" {
		return a.end(&failure{kind: "authentication_error", message: "no credentials: set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN"})
	}
	got, f := a.call(ctx)
	if f != nil {
		return a.end(f)
	}
	if got.text != "" {
		// Store the answer before it is printed, so that a visible answer can always be resumed.
		if err := a.history.add(entry{Role: "assistant", Text: got.text, Model: got.model, Stop: got.stop}); err != nil {
			return a.end(&failure{kind: "history", message: "the answer could not be stored: " + err.Error()})
		}
	}
	a.print(got.message(a.Session))
	switch got.stop {
	case "max_tokens":
		return a.end(&failure{kind: "max_tokens", message: fmt.Sprintf("the answer was truncated at the limit of %d tokens: set ANTHROPIC_MAX_TOKENS in env, or request a shorter answer", a.MaxTokens), got: got})
	case "refusal":
		return a.end(&failure{kind: "refusal", message: "the model declined to answer", got: got})
	case "model_context_window_exceeded":
		return a.end(&failure{kind: "context_window", message: "the conversation has reached the model's maximum length: start a new one", got: got})
	}
	a.print(a.result(got, false, got.text, nil))
	if a.failed != nil {
		return 1
	}
	return 0
}

func newAsker(o Options) *caller {
	if o.Model == "" {
		o.Model = DefaultModel
	}
	if o.MaxTokens <= 0 {
		o.MaxTokens = DefaultMaxTokens
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = pause
	}
	if o.Client == nil {
		o.Client = newClient()
	}
	if o.Direct == "" {
		o.Direct = Direct
	}
	o.Direct = address(o.Direct)
	a := &caller{Options: o, began: o.Now(), base: address(o.Base)}
	if a.base == "" {
		a.base = o.Direct
	}
	return a
}

// address returns a base URL without the path that is added to it.
func address(s string) string {
	return strings.TrimSuffix(strings.TrimRight(strings.TrimSpace(s), "/"), "/v1")
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// begin opens the conversation and stores the prompt in it.
func (a *caller) begin() *failure {
	if strings.TrimSpace(a.Prompt) == "" {
		return &failure{kind: "invalid_request_error", message: "the prompt is empty"}
	}
	h, err := openHistory(a.Dir, a.Session, a.Resume)
	switch {
	case err == errNoHistory:
		return &failure{kind: "session", message: "No conversation found with session ID: " + a.Session}
	case err != nil:
		return &failure{kind: "history", message: "the conversation's history could not be opened: " + err.Error()}
	}
	if h.skipped > 0 {
		fmt.Fprintf(a.Err, "agented: %d lines of the conversation's history could not be read and were skipped\n", h.skipped)
	}
	if err := h.add(entry{Role: "user", Text: a.Prompt}); err != nil {
		h.close()
		return &failure{kind: "history", message: "the prompt could not be stored: " + err.Error()}
	}
	a.history = h
	return nil
}

// call sends the request, and retries where that may help within a short time.
func (a *caller) call(ctx context.Context) (*answer, *failure) {
	waited := time.Duration(0)
	for try := 1; ; try++ {
		got, f := a.once(ctx)
		if f == nil {
			return got, nil
		}
		wait := f.after
		if wait <= 0 {
			wait = min(time.Second<<(try-1), 20*time.Second)
			wait += time.Duration(rand.Int64N(int64(wait)/4 + 1)) // jitter, so that many clients do not retry at once
		}
		if !f.again || f.begun || try == maxTries || wait > maxWait || waited+wait > maxWaits {
			return nil, f
		}
		a.print(object{
			"type": "system", "subtype": "api_retry", "attempt": try, "max_retries": maxTries - 1, "retry_delay_ms": wait.Milliseconds(),
			"error_status": orNil(f.status), "error": f.kind, "session_id": a.Session,
		})
		waited += wait
		if err := a.Wait(ctx, wait); err != nil {
			return nil, f
		}
	}
}

// failure is the reason why there is no complete answer.
type failure struct {
	status  int           // of HTTP; 0 if there was no response
	kind    string        // error type of the API, or one of this package
	message string        // message
	again   bool          // a retry may help
	begun   bool          // parts of an answer have been printed
	after   time.Duration // requested delay of a retry
	until   time.Time     // reset time of the limit, if known
	window  string        // name of the limit window
	got     *answer       // incomplete answer
}

// end prints the failure and returns the exit code.
func (a *caller) end(f *failure) int {
	if !f.until.IsZero() {
		a.print(object{"type": "rate_limit_event", "session_id": a.Session, "rate_limit_info": object{
			"status": "rejected", "resetsAt": f.until.Unix(), "rateLimitType": f.window,
		}})
	}
	a.print(a.result(f.got, true, a.clean(f.message), f))
	return 1
}

// result returns the last line.
func (a *caller) result(got *answer, bad bool, text string, f *failure) object {
	out := object{
		"type": "result", "subtype": "success", "is_error": bad, "result": text, "session_id": a.Session, "num_turns": 1,
		"duration_ms": a.Now().Sub(a.began).Milliseconds(),
	}
	if got != nil {
		out["usage"], out["stop_reason"] = got.usage, got.stop
	}
	if f != nil {
		out["api_error_status"], out["api_error_type"] = orNil(f.status), f.kind
	}
	return out
}

type object = map[string]any

func orNil(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// print writes one line. Write errors end the request.
func (a *caller) print(v object) {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = a.Out.Write(append(line, '\n'))
	}
	if err != nil && a.failed == nil {
		a.failed = err
	}
}

func (a *caller) keySource() string {
	switch {
	case a.Key != "":
		return "ANTHROPIC_API_KEY"
	case a.Token != "":
		return "ANTHROPIC_AUTH_TOKEN"
	}
	return "none"
}

// clean removes the credentials from external text.
func (a *caller) clean(s string) string {
	for _, secret := range []string{a.Key, a.Token} {
		if len(secret) >= 8 {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}
