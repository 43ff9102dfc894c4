// Package client speaks to a server's API for the commands of the program.
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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Runtime is what a server leaves for the clients of the same user: where it
// is and where the key is. It holds no secret.
type Runtime struct {
	Address string `json:"address"`  // base URL, or unix:/path
	KeyFile string `json:"key_file"` // file with an admin key, mode 0600
	DataDir string `json:"data_dir"`
	PID     int    `json:"pid"`
}

// RuntimeFile is where the runtime file of this user is: in runtimeDir (the
// value of XDG_RUNTIME_DIR) if there is one, else below home.
func RuntimeFile(runtimeDir, home string) string {
	if runtimeDir != "" {
		return filepath.Join(runtimeDir, "agented.json")
	}
	return filepath.Join(home, ".local", "state", "agented", "server.json")
}

// ReadRuntime reads a runtime file. A missing one is a NotFound.
func ReadRuntime(path string) (Runtime, error) {
	var r Runtime
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, agented.Errorf(agented.NotFound, "no server has been started by this user: run `agented serve`, or set AGENTED_URL")
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, agented.Errorf(agented.Invalid, "%s cannot be read (%v): remove it and restart the server", path, err)
	}
	return r, nil
}

// WriteRuntime replaces a runtime file at once, mode 0600.
func WriteRuntime(path string, r Runtime) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".agented-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// answerWithin is how long a request waits for the first byte of its answer. A
// supervisor that keeps the socket accepts connections while no server runs, and
// without a bound a command would wait for one that never comes. It is longer
// than a restart takes.
const answerWithin = 90 * time.Second

// Client calls one server.
type Client struct {
	base   string
	key    string
	http   *http.Client
	within time.Duration // answerWithin but in tests
}

// New returns a client of the server at address: an http or https URL, or
// unix:/path of a socket. The key goes with each request.
func New(address, key string) (*Client, error) {
	c := &Client{key: strings.TrimSpace(key), within: answerWithin, http: &http.Client{
		// Following one would carry the key to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		c.base = "http://localhost"
		c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		return c, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_URL is not an address: use http://HOST:PORT, https://… or unix:/PATH")
	}
	c.base = strings.TrimSuffix(u.Scheme+"://"+u.Host+u.Path, "/")
	return c, nil
}

// Base is the address that requests go to, for people.
func (c *Client) Base() string { return c.base }

// problem is the part of an RFC 9457 answer that a command shows.
type problem struct {
	Title  string       `json:"title"`
	Detail string       `json:"detail"`
	Kind   agented.Kind `json:"kind"`
	Check  string       `json:"check"` // of the health routes
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// Do sends a request and decodes the answer into the value that into points
// to, unless that is nil. Errors are agented.Errors with the server's sentence.
// Nothing at all within a minute and a half is one, too.
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
			"%s takes connections but has not answered for %s: the server hangs, or it is down and what runs it keeps its socket; its log says which (`agented service status` names it)", c.base, c.within)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return agented.Errorf(agented.Unavailable, "the answer of %s broke off: %v", c.base, err)
	}
	if into == nil || len(b) == 0 {
		return nil
	}
	if raw, ok := into.(*json.RawMessage); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return agented.Errorf(agented.Unavailable, "%s answered with something else than the API's JSON: is it an Agented server?", c.base).Because(err)
	}
	return nil
}

// send returns a good answer; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
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
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, agented.Errorf(agented.Unavailable, "no server answers at %s: start it with `agented serve`, or set AGENTED_URL", c.base).Because(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal turns an answer that is not good into an error.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p problem
	if json.Unmarshal(b, &p) != nil || p.Title == "" && p.Detail == "" {
		p.Detail = fmt.Sprintf("the server answered %s", resp.Status)
		if p.Check != "" {
			p.Detail = "the server is not ready: " + p.Check
		}
		if to, err := resp.Location(); err == nil && resp.StatusCode < 400 {
			p.Detail = fmt.Sprintf("the server says that it is at %s://%s: set AGENTED_URL to that if it is right", to.Scheme, to.Host)
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

// again is how long a follower waits before it connects again.
const again = 500 * time.Millisecond
