// Package client is the API client of the commands.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agented/agented"
)

// answerWithin is the timeout for the first byte of an answer. A service manager that keeps the
// socket accepts connections while no server is running; without a timeout, a command would wait
// for an answer that never comes. It is longer than a restart takes.
const answerWithin = 90 * time.Second

// Client calls one server.
type Client struct {
	base   string
	name   string // address in messages
	local  bool   // it uses the local socket
	key    string
	http   *http.Client
	within time.Duration // answerWithin, except in tests
}

// New returns a client of the server at address: an http or https URL, or unix:/path of a socket.
// The key is sent with each request.
func New(address, key string) (*Client, error) {
	c := &Client{key: strings.TrimSpace(key), within: answerWithin, http: &http.Client{
		// Following a redirect would send the key to another address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		c.base = "http://localhost"
		c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		c.name = address
		return c, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_URL is not a valid address: use http://HOST:PORT, https://… or unix:/PATH")
	}
	c.base = strings.TrimSuffix(u.Scheme+"://"+u.Host+u.Path, "/")
	c.name = c.base
	return c, nil
}

// NewLocal returns a client that uses the local socket of the server at address, without a key.
func NewLocal(socket, address string) *Client {
	c := &Client{base: "http://localhost", name: address, local: true, within: answerWithin, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialLocal(ctx, socket, address, c.within)
	}}
	return c
}

// problem is the part of an RFC 9457 answer that a command shows.
type problem struct {
	Title  string       `json:"title"`
	Detail string       `json:"detail"`
	Kind   agented.Kind `json:"kind"`
	Check  string       `json:"check"` // of the health endpoints
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// Do sends a request and decodes the answer into the value that into points to, unless into is
// nil. Errors are agented.Errors with the server's message, or with a message of the client if
// the server does not answer within answerWithin.
func (c *Client) Do(ctx context.Context, method, path string, header http.Header, body, into any) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(c.within, cancel)
	resp, err := c.send(asking, method, path, header, body)
	if !late.Stop() && ctx.Err() == nil {
		if err == nil {
			resp.Body.Close()
		}
		return agented.Errorf(agented.Unavailable,
			"%s accepts connections but has not answered for %s: the server hangs, or it is down and its service manager keeps the socket; see its log (`agented service status` names it)", c.name, c.within)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return agented.Errorf(agented.Unavailable, "the answer of %s was interrupted: %v", c.name, err)
	}
	if into == nil || len(b) == 0 {
		return nil
	}
	if raw, ok := into.(*json.RawMessage); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return agented.Errorf(agented.Unavailable, "%s did not answer with the API's JSON: check that it is an Agented server", c.name).Because(err)
	}
	return nil
}

// send returns a successful response; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		// Without HTML escaping, which turns each <, > and & into six bytes.
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(body); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = &b
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, fmt.Errorf("create request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("X-API-Key", c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil && c.local && method == http.MethodGet && ctx.Err() == nil && interrupted(err) {
		resp, err = c.http.Do(req) // the server ended: ask the next one
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if own, ok := errors.AsType[*agented.Error](err); ok {
			return nil, own
		}
		return nil, agented.Errorf(agented.Unavailable, "no server answers at %s: start it with `agented serve`, or set AGENTED_URL", c.name).Because(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal converts an error response to an error.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p problem
	if json.Unmarshal(b, &p) != nil || p.Title == "" && p.Detail == "" {
		p.Detail = fmt.Sprintf("the server answered %s", resp.Status)
		if p.Check != "" {
			p.Detail = "the server is not ready: " + p.Check
		}
		if to, err := resp.Location(); err == nil && resp.StatusCode < 400 {
			p.Detail = fmt.Sprintf("the server redirects to %s://%s: if that is correct, set AGENTED_URL to it", to.Scheme, to.Host)
		}
	}
	e := &agented.Error{Kind: p.Kind, Text: p.Detail}
	if e.Text == "" {
		e.Text = p.Title
	}
	if e.Kind == "" {
		e.Kind = kindOf(resp.StatusCode)
	}
	for _, f := range p.Errors {
		e.Fields = append(e.Fields, agented.Field{Path: strings.TrimPrefix(f.Location, "body."), Text: f.Message})
	}
	return e
}

func kindOf(status int) agented.Kind {
	switch status {
	case http.StatusUnauthorized:
		return agented.Unauthenticated
	case http.StatusForbidden, http.StatusMisdirectedRequest:
		return agented.Denied
	case http.StatusNotFound:
		return agented.NotFound
	case http.StatusConflict:
		return agented.Conflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return agented.Invalid
	case http.StatusTooManyRequests:
		return agented.RateLimited
	}
	return agented.Unavailable
}

// again is the delay before a follower reconnects.
const again = 500 * time.Millisecond
