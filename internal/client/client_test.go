package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

// silent is a socket that accepts connections without an answer, like one that a service manager
// keeps.
func silent(t *testing.T) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := New("http://"+l.Addr().String(), "key")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDo_no_answer(t *testing.T) {
	t.Parallel()
	c := silent(t)
	c.within = 50 * time.Millisecond
	err := c.Do(t.Context(), http.MethodGet, "/api/v1/triggers", nil, nil, nil)
	if !errors.Is(err, agented.Unavailable) || !strings.Contains(err.Error(), "has not answered for 50ms") {
		t.Errorf("%v", err)
	}
}

func TestDo_interrupted(t *testing.T) {
	t.Parallel()
	c := silent(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Do(ctx, http.MethodGet, "/api/v1/triggers", nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestDo_timeout_first_byte_only(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			<-more // not even the headers
		}
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, `{"a":`)
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/slow" {
			<-more
		}
		_, _ = io.WriteString(w, "1}")
	}))
	defer srv.Close()
	c, err := New(srv.URL, "key")
	if err != nil {
		t.Fatal(err)
	}
	c.within = time.Second
	// Far beyond the timeout of both.
	time.AfterFunc(1500*time.Millisecond, func() { close(more) })
	streamed := make(chan error, 1)
	go func() {
		resp, err := c.send(t.Context(), http.MethodGet, "/stream", nil, nil)
		if err == nil {
			err = resp.Body.Close()
		}
		streamed <- err
	}()
	var got struct{ A int }
	if err := c.Do(t.Context(), http.MethodGet, "/slow", nil, nil, &got); err != nil || got.A != 1 {
		t.Errorf("%v %v", got, err)
	}
	if err := testrun.Receive(t, streamed, "the stream to end"); err != nil {
		t.Errorf("the stream: %v", err)
	}
}
