package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Line is one line of a run log from the API. Seq is 0 for a notice of the server that is not in
// the log.
type Line struct {
	Seq       int64     `json:"seq"`
	Attempt   int       `json:"attempt"`
	Timestamp time.Time `json:"timestamp"`
	Stream    string    `json:"stream"`
	Content   string    `json:"content"`
	Part      string    `json:"part"`
	NoEOL     bool      `json:"no_eol"`
}

// Status is a status event of an execution's stream.
type Status struct {
	Execution string `json:"execution_id"`
	Status    string `json:"status"`
	Attempt   int    `json:"attempt"`
	Reason    string `json:"reason"`
}

// Complete is the end of an execution, from its stream.
type Complete struct {
	Status     string `json:"status"`
	ExitCode   *int   `json:"exit_code"`
	Error      string `json:"error_message"`
	DurationMS *int64 `json:"duration_ms"`
}

// Follower receives the events of a stream. Nil functions are not called.
type Follower struct {
	Line         func(Line)
	Status       func(Status)
	Reconnecting func(error) // called once per lost connection
}

// Follow reads an execution's stream after line after (-1: the server's replay window) to its
// end, and reconnects after lost connections. It returns early only if ctx ends or the server
// rejects the request.
func (c *Client) Follow(ctx context.Context, id string, after int64, f Follower) (*Complete, error) {
	last := ""
	if after >= 0 {
		last = strconv.FormatInt(after, 10)
	}
	lost := false
	for {
		done, err := c.followOnce(ctx, id, &last, f)
		if done != nil || ctx.Err() != nil {
			return done, ctx.Err()
		}
		if err != nil && agented.KindOf(err) != agented.Unavailable && agented.KindOf(err) != agented.Internal && agented.KindOf(err) != agented.RateLimited {
			return nil, err
		}
		if !lost && f.Reconnecting != nil {
			f.Reconnecting(err)
		}
		lost = err != nil
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(again):
		}
	}
}

// followOnce reads one connection. It returns the end of the execution if it arrives.
func (c *Client) followOnce(ctx context.Context, id string, last *string, f Follower) (*Complete, error) {
	header := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	resp, err := c.send(ctx, http.MethodGet, "/api/v1/executions/"+id+"/stream", header, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return c.final(ctx, id)
	}
	var done *Complete
	err = Events(resp.Body, func(event, eventID string, data []byte) error {
		switch event {
		case "log":
			var l Line
			if err := json.Unmarshal(data, &l); err != nil {
				return fmt.Errorf("log event: %w", err)
			}
			if f.Line != nil {
				f.Line(l)
			}
		case "status":
			var s Status
			if err := json.Unmarshal(data, &s); err != nil {
				return fmt.Errorf("status event: %w", err)
			}
			if f.Status != nil {
				f.Status(s)
			}
		case "complete":
			done = new(Complete)
			if err := json.Unmarshal(data, done); err != nil {
				return fmt.Errorf("complete event: %w", err)
			}
			return io.EOF
		}
		if eventID != "" {
			*last = eventID // after the event has been processed
		}
		return nil
	})
	return done, err
}

// final fetches the end of an execution whose stream has no more events.
func (c *Client) final(ctx context.Context, id string) (*Complete, error) {
	var e struct {
		Complete
	}
	if err := c.Do(ctx, http.MethodGet, "/api/v1/executions/"+id, nil, nil, &e); err != nil {
		return nil, err
	}
	return &e.Complete, nil
}

// maxEvent is the maximum size of one event in bytes: a line of 1 MiB with every byte escaped,
// and its frame.
const maxEvent = 8 << 20

// Events reads server-sent events until the body ends or handle returns an error; io.EOF from
// handle is a normal end. The data is valid during the call only.
func Events(body io.Reader, handle func(event, id string, data []byte) error) error {
	in := bufio.NewReaderSize(body, 64<<10)
	var event, id string
	var data, line []byte
	for {
		line = line[:0]
		for {
			part, err := in.ReadSlice('\n')
			line = append(line, part...)
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return agented.Errorf(agented.Unavailable, "the connection was lost").Because(err)
			}
			if len(line) > maxEvent {
				return agented.Errorf(agented.Invalid, "the server sent an event of more than %d bytes", maxEvent)
			}
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		if text == "" {
			if event != "" || len(data) > 0 {
				if err := handle(event, id, data); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
			}
			event, id, data = "", "", data[:0]
			continue
		}
		field, value, _ := strings.Cut(text, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			event = value
		case "id":
			id = value
		case "data":
			if len(data) > 0 {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
		if len(data) > maxEvent {
			return agented.Errorf(agented.Invalid, "the server sent an event of more than %d bytes", maxEvent)
		}
	}
}
