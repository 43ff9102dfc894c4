package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/agented/agented"
)

// FollowFeed reads a stream of numbered events after the id after (empty: from the server's
// default position) until handle returns io.EOF. It reconnects after lost connections; each event
// arrives once, in order. Other errors of handle end it. reconnecting is called once per lost
// connection; it may be nil.
func (c *Client) FollowFeed(ctx context.Context, path, after string, handle func(event, id string, data []byte) error, reconnecting func(error)) error {
	last := after
	lost := false
	for {
		var stop error
		err := c.feedOnce(ctx, path, last, func(event, id string, data []byte) error {
			lost = false
			if stop = handle(event, id, data); stop != nil {
				return stop
			}
			if id != "" {
				last = id // after the event has been processed
			}
			return nil
		})
		switch {
		case errors.Is(stop, io.EOF):
			return nil
		case stop != nil:
			return stop
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err != nil {
			if k := agented.KindOf(err); k != agented.Unavailable && k != agented.Internal && k != agented.RateLimited {
				return err
			}
			if !lost && reconnecting != nil {
				reconnecting(err)
			}
			lost = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

func (c *Client) feedOnce(ctx context.Context, path, last string, handle func(event, id string, data []byte) error) error {
	header := http.Header{"Accept": {"text/event-stream"}}
	if last != "" {
		header.Set("Last-Event-ID", last)
	}
	resp, err := c.send(ctx, http.MethodGet, path, header, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return Events(resp.Body, handle)
}
