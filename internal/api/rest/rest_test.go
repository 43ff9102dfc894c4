package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func FuzzRequestID(f *testing.F) {
	f.Add("trace-1")
	f.Add("a b")
	f.Fuzz(func(t *testing.T, id string) {
		if !validRequestID(id) {
			return
		}
		for _, c := range id {
			if c <= ' ' || c >= 0x7f || c == '"' {
				t.Errorf("%q passed", id)
			}
		}
	})
}

func TestProblemOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status int
		detail string
		retry  int
		fields string
	}{
		"internal":     {errors.New("secret cause"), 500, "internal error", 0, ""},
		"wrapped":      {fmt.Errorf("read: %w", agented.Errorf(agented.NotFound, "there is no such trigger")), 404, "there is no such trigger", 0, ""},
		"rate_limited": {&agented.Error{Kind: agented.RateLimited, Text: "too many attempts", RetryAfter: 1500 * time.Millisecond}, 429, "too many attempts", 2, ""},
		"problem":      {fmt.Errorf("x: %w", &Problem{Status: 415, Kind: agented.Invalid, Detail: "not a form"}), 415, "not a form", 0, ""},
		"fields":       {agented.InvalidFields([]agented.Field{{Path: "name", Text: "is required"}, {Path: "query.q", Text: "is bad"}}), 422, "name: is required (and 1 more)", 0, "body.name query.q"},
		"bad_request":  {BadRequest("query.limit", "must be a number"), 400, "query.limit: must be a number", 0, "query.limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := problemOf(c.err)
			var fields []string
			for _, f := range p.Errors {
				fields = append(fields, f.Location)
			}
			if p.Status != c.status || p.Detail != c.detail || p.retryAfter != c.retry || strings.Join(fields, " ") != c.fields {
				t.Errorf("got %+v with retry after %d", p, p.retryAfter)
			}
		})
	}
}

func TestFail_without_router(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Fail(w, httptest.NewRequest("GET", "/x", nil), &agented.Error{Kind: agented.Unavailable, Text: "busy", RetryAfter: time.Second})
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusServiceUnavailable || p.Detail != "busy" || p.Title != "Service Unavailable" {
		t.Errorf("status %d, %s, %v", w.Code, w.Body, err)
	}
	if got := w.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q", got)
	}
	if got := w.Header().Get("Content-Type"); got != problemType {
		t.Errorf("Content-Type %q", got)
	}
}

// Routes that are not in the table cannot be registered.
func TestHandleFunc_outside_table(t *testing.T) {
	t.Parallel()
	m := &Router{mux: http.NewServeMux()}
	defer func() {
		if recover() == nil {
			t.Error("a handler without a role was registered")
		}
	}()
	m.HandleFunc("GET /x", func(http.ResponseWriter, *http.Request) {})
}
