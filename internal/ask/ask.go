// Package ask puts one question to Anthropic's Messages API, without tools, and
// prints the answer in the lines that Claude Code prints.
package ask

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

// DefaultModel is asked when nobody names a model. It is an alias that public
// documents use and that the list of prices knows; whoever wants another one
// names it.
const DefaultModel = "claude-sonnet-4-5"

// DefaultMaxTokens bounds an answer. Every current model of the 4 family writes
// as much; the smallest limit among them is 32 000.
const DefaultMaxTokens = 32000

// Direct is where the API itself is.
const Direct = "https://api.anthropic.com"

// Bounds of trying again. What would take longer is the server's to wait for.
const (
	maxTries = 6
	maxWait  = time.Minute
	maxWaits = 3 * time.Minute
)

// Options is one question.
type Options struct {
	Session string // id of the conversation
	Resume  bool   // it goes on, and must be there
	Dir     string // where conversations are kept
	Pieces  bool   // print the answer in pieces too, as they come

	Model     string // empty: DefaultModel
	MaxTokens int    // 0: DefaultMaxTokens
	System    string
	Prompt    string

	Key, Token string // one of them
	Base       string // address of the API or of a proxy for it; empty: Direct
	Direct     string // where the API itself is; empty: Direct

	Version  string // of this program
	Out, Err io.Writer
	Client   *http.Client                               // nil: one of its own
	Now      func() time.Time                           // nil: time.Now
	Wait     func(context.Context, time.Duration) error // nil: time
}

// asker is one question under way.
type asker struct {
	Options
	base    string // address that is asked now
	history *history
	began   time.Time
	failed  error // of writing to Out
}

// Run asks and prints. It returns the program's exit code: 0 when there is a
// whole answer. What went wrong is in the last line that it prints.
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
	got, f := a.ask(ctx)
	if f != nil {
		return a.end(f)
	}
	if got.text != "" {
		// Disk before the wire: what somebody has seen is there to go on from.
		if err := a.history.add(entry{Role: "assistant", Text: got.text, Model: got.model, Stop: got.stop}); err != nil {
			return a.end(&failure{kind: "history", message: "the answer could not be kept: " + err.Error()})
		}
	}
	a.print(got.message(a.Session))
	switch got.stop {
	case "max_tokens":
		return a.end(&failure{kind: "max_tokens", message: fmt.Sprintf("the answer was cut at %d tokens, which is the most that was asked for: set ANTHROPIC_MAX_TOKENS in env, or ask for less", a.MaxTokens), got: got})
	case "refusal":
		return a.end(&failure{kind: "refusal", message: "the model declined to answer", got: got})
	case "model_context_window_exceeded":
		return a.end(&failure{kind: "context_window", message: "the conversation has reached the most that the model can take: begin a new one", got: got})
	}
	a.print(a.result(got, false, got.text, nil))
	if a.failed != nil {
		return 1
	}
	return 0
}

func newAsker(o Options) *asker {
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
	a := &asker{Options: o, began: o.Now(), base: address(o.Base)}
	if a.base == "" {
		a.base = o.Direct
	}
	return a
}

// address is a base address as it is put before /v1/messages.
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

// begin opens the conversation and keeps the question in it.
func (a *asker) begin() *failure {
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
		fmt.Fprintf(a.Err, "agented: %d lines of the conversation's history could not be read and are left out\n", h.skipped)
	}
	if err := h.add(entry{Role: "user", Text: a.Prompt}); err != nil {
		h.close()
		return &failure{kind: "history", message: "the question could not be kept: " + err.Error()}
	}
	a.history = h
	return nil
}

// ask asks, again where that may help and does not take long.
func (a *asker) ask(ctx context.Context) (*answer, *failure) {
	waited := time.Duration(0)
	for try := 1; ; try++ {
		got, f := a.once(ctx)
		if f == nil {
			return got, nil
		}
		wait := f.after
		if wait <= 0 {
			wait = min(time.Second<<(try-1), 20*time.Second)
			wait += time.Duration(rand.Int64N(int64(wait)/4 + 1)) // so that many do not come back at once
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

// failure is why there is no answer, or none that is whole.
type failure struct {
	status  int           // of HTTP; 0: there was none
	kind    string        // the API's own word, or ours
	message string        // a sentence
	again   bool          // asking again may help
	begun   bool          // pieces of an answer have been printed
	after   time.Duration // when to ask again, if it was said
	until   time.Time     // when the limit lifts, if it was said
	window  string        // and which allowance it is
	got     *answer       // what there is of an answer
}

// end prints why there is no answer, and returns the exit code.
func (a *asker) end(f *failure) int {
	if !f.until.IsZero() {
		a.print(object{"type": "rate_limit_event", "session_id": a.Session, "rate_limit_info": object{
			"status": "rejected", "resetsAt": f.until.Unix(), "rateLimitType": f.window,
		}})
	}
	a.print(a.result(f.got, true, a.clean(f.message), f))
	return 1
}

// result is the last line.
func (a *asker) result(got *answer, bad bool, text string, f *failure) object {
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

// print writes one line. What cannot be written is what nobody reads.
func (a *asker) print(v object) {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = a.Out.Write(append(line, '\n'))
	}
	if err != nil && a.failed == nil {
		a.failed = err
	}
}

func (a *asker) keySource() string {
	switch {
	case a.Key != "":
		return "ANTHROPIC_API_KEY"
	case a.Token != "":
		return "ANTHROPIC_AUTH_TOKEN"
	}
	return "none"
}

// clean takes the credentials out of a sentence that came from outside.
func (a *asker) clean(s string) string {
	for _, secret := range []string{a.Key, a.Token} {
		if len(secret) >= 8 {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}
