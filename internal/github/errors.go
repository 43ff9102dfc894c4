package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/agented/agented"
)

// Error is a call that failed.
type Error struct {
	// Kind is RateLimited, Unavailable (a network error, or status 5xx), NotFound
	// (404 and 410), Denied (403), Unauthenticated (401), Invalid (422 and 400),
	// Conflict (409), TooLarge or Internal.
	Kind         agented.Kind
	Method, Path string
	Status       int    // of the answer; 0 if none arrived
	Text         string // GitHub's message, or the problem; a short single line
	Codes        []string
	// RetryAt is the earliest time for another try; for RateLimited only.
	RetryAt time.Time
	// Secondary marks a limit against bursts.
	Secondary bool
	Cause     error
}

func (e *Error) Error() string {
	status := ""
	if e.Status != 0 {
		status = fmt.Sprintf(" (status %d)", e.Status)
	}
	text := "GitHub: " + e.Text + status + " for " + e.Method + " " + e.Path
	if e.Kind == agented.RateLimited {
		text += "; retry at " + e.RetryAt.UTC().Format(time.RFC3339)
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is the error's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(agented.Kind)
	return ok && k == e.Kind
}

// Retryable reports whether the same call can succeed later.
func (e *Error) Retryable() bool {
	return e.Kind == agented.RateLimited || e.Kind == agented.Unavailable
}

// MayBeDone reports whether GitHub may have done what the call requested
// although it failed: the answer was lost. A write must look for its own result
// before it is repeated.
func (e *Error) MayBeDone() bool { return e.Kind == agented.Unavailable || e.Kind == agented.TooLarge }

// Gone reports whether what the call requested existed and was removed.
func (e *Error) Gone() bool { return e.Status == http.StatusGone }

// RetryAt returns when a call that failed with err may be tried again: never
// (false) if it would fail again. The time is zero if GitHub named none.
func RetryAt(err error) (at time.Time, ok bool) {
	e, is := errors.AsType[*Error](err)
	if !is || !e.Retryable() {
		return time.Time{}, false
	}
	return e.RetryAt, true
}

// lost returns the error of a call whose answer did not arrive.
// ctx is that of the caller.
func lost(ctx context.Context, k call, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := "no answer"
	if errors.Is(err, context.DeadlineExceeded) {
		text = fmt.Sprintf("no answer within %s", callTime)
	}
	return &Error{Kind: agented.Unavailable, Method: k.method, Path: k.path, Text: text, Cause: err}
}

// failure returns the error of an answer.
func (c *Client) failure(k call, res *http.Response, body []byte) *Error {
	var m struct {
		Message string `json:"message"`
		Errors  []json.RawMessage
	}
	_ = json.Unmarshal(body, &m)
	e := &Error{Method: k.method, Path: k.path, Status: res.StatusCode, Text: line(m.Message)}
	for _, raw := range m.Errors {
		var one struct{ Resource, Field, Code, Message string }
		if text := ""; json.Unmarshal(raw, &text) == nil {
			one.Message = text
		} else {
			_ = json.Unmarshal(raw, &one)
		}
		if one.Code != "" {
			e.Codes = append(e.Codes, line(one.Code))
		}
		detail := one.Message
		if detail == "" {
			detail = strings.TrimSpace(one.Field + " " + one.Code)
		}
		if detail != "" && len(e.Text) < maxText {
			e.Text += ": " + line(detail)
		}
	}
	if e.Text == "" {
		e.Text = http.StatusText(res.StatusCode)
	}
	if at, secondary, limited := c.limitOf(res, m.Message); limited {
		e.Kind, e.RetryAt, e.Secondary = agented.RateLimited, at, secondary
		return e
	}
	switch s := res.StatusCode; {
	case s >= 500 || s == http.StatusRequestTimeout:
		e.Kind = agented.Unavailable
	case s == http.StatusNotFound || s == http.StatusGone:
		e.Kind = agented.NotFound
	case s == http.StatusForbidden || s == http.StatusUnavailableForLegalReasons:
		e.Kind = agented.Denied
	case s == http.StatusUnauthorized:
		e.Kind = agented.Unauthenticated
	case s == http.StatusConflict:
		e.Kind = agented.Conflict
	case s == http.StatusRequestEntityTooLarge:
		e.Kind = agented.Invalid
	case s >= 400:
		e.Kind = agented.Invalid
	default:
		e.Kind = agented.Internal
	}
	return e
}

const maxText = 300

// line returns a text of another system as one short line without control
// characters.
func line(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
