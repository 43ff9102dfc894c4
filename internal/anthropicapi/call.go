package anthropicapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented/internal/format"
)

// Timeouts of the API's silence. It sends a ping every few seconds.
const (
	connectLimit = 15 * time.Second
	headerLimit  = 2 * time.Minute
	idleLimit    = 3 * time.Minute
)

func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: connectLimit}).DialContext,
			TLSHandshakeTimeout:   connectLimit,
			ResponseHeaderTimeout: headerLimit,
			ForceAttemptHTTP2:     true,
		},
		// Redirects are not followed, so that the key is sent to the configured address only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// once sends the request once.
func (a *caller) once(ctx context.Context) (*answer, *failure) {
	in := object{"model": a.Model, "max_tokens": a.MaxTokens, "stream": true, "messages": a.history.messages()}
	if a.System != "" {
		in["system"] = a.System
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, &failure{kind: "invalid_request_error", message: err.Error()}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := a.post(ctx, body)
	if err != nil {
		return nil, a.broken(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, a.refused(resp)
	}
	idle := time.AfterFunc(idleLimit, cancel)
	defer idle.Stop()
	got := &answer{model: a.Model}
	err = events(&alive{resp.Body, idle}, func(data []byte) error {
		piece, err := got.apply(data)
		if piece && a.Pieces {
			var line bytes.Buffer
			if json.Compact(&line, data) == nil {
				a.print(object{"type": "stream_event", "event": json.RawMessage(line.Bytes()), "session_id": a.Session, "parent_tool_use_id": nil})
			}
		}
		return err
	})
	var said *failure
	switch {
	case errors.As(err, &said):
		said.begun = got.text != ""
		said.got = got
		return nil, said
	case err != nil:
		f := a.broken(err)
		f.begun, f.got = got.text != "", got
		return nil, f
	case !got.ended:
		return nil, &failure{kind: "connection_error", message: "the connection was closed before the end of the answer", again: true, begun: got.text != "", got: got}
	}
	return got, nil
}

// post sends the request to the current address. If that is a proxy that does not answer, it
// switches to the API itself for this and later requests.
func (a *caller) post(ctx context.Context, body []byte) (*http.Response, error) {
	resp, err := a.send(ctx, a.base, body)
	if a.base == a.Direct || ctx.Err() != nil || !silent(resp, err) {
		return resp, err
	}
	why := ""
	if err != nil {
		why = a.reason(err)
	} else {
		why = "HTTP " + strconv.Itoa(resp.StatusCode)
		resp.Body.Close()
	}
	fmt.Fprintf(a.Err, "agented: %s does not answer (%s): using %s directly\n", host(a.base), why, host(a.Direct))
	a.base = a.Direct
	return a.send(ctx, a.base, body)
}

// silent reports whether a proxy returned no answer of the API. An invalid certificate counts as
// an answer, because a server responded.
func silent(resp *http.Response, err error) bool {
	if err == nil {
		return resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout
	}
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	return !errors.As(err, &cert) && !errors.As(err, &authority) && !errors.As(err, &name)
}

func (a *caller) send(ctx context.Context, base string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "text/event-stream")
	h.Set("Anthropic-Version", "2023-06-01")
	h.Set("User-Agent", "agented/"+a.Version)
	if a.Key != "" {
		h.Set("X-Api-Key", a.Key)
	}
	if a.Token != "" {
		h.Set("Authorization", "Bearer "+a.Token)
	}
	return a.Client.Do(req)
}

// host returns an address without its credentials and path.
func host(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return "the address of ANTHROPIC_BASE_URL"
	}
	return u.Scheme + "://" + u.Host
}

// reason returns a network error without the address, which may contain a password.
func (a *caller) reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return a.clean(err.Error())
}

// broken converts a network error to a failure.
func (a *caller) broken(err error) *failure {
	if errors.Is(err, errTooMuch) {
		return &failure{kind: "too_large", message: "the answer is too large"}
	}
	return &failure{kind: "connection_error", message: "connection to " + host(a.base) + " failed: " + a.reason(err), again: silent(nil, err)}
}

// refused converts an error response to a failure.
func (a *caller) refused(resp *http.Response) *failure {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	f := &failure{status: resp.StatusCode}
	var said struct {
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &said) == nil {
		f.kind, f.message = cut(said.Error.Type, 100), cut(said.Error.Message, 2<<10)
	}
	if f.kind == "" {
		f.kind = "api_error"
	}
	if f.message == "" {
		f.message = fmt.Sprintf("%s answered with HTTP %d", host(a.base), resp.StatusCode)
	}
	f.again = f.status == http.StatusTooManyRequests || f.status == http.StatusRequestTimeout || f.status == http.StatusConflict || f.status >= 500
	switch resp.Header.Get("X-Should-Retry") {
	case "true":
		f.again = true
	case "false":
		f.again = false
	}
	now := a.Now()
	f.after = retryAfter(resp.Header, now)
	if f.after > 0 {
		f.until = now.Add(f.after)
	}
	if resp.Header.Get("Anthropic-Ratelimit-Unified-Status") == "rejected" {
		if n, err := strconv.ParseInt(resp.Header.Get("Anthropic-Ratelimit-Unified-Reset"), 10, 64); err == nil && n > now.Unix() && n < now.AddDate(1, 0, 0).Unix() {
			f.until = time.Unix(n, 0)
			f.after = f.until.Sub(now)
		}
		f.window = cut(resp.Header.Get("Anthropic-Ratelimit-Unified-Representative-Claim"), 100)
	}
	return f
}

// retryAfter returns the delay that a response requests, or 0.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 && ms < 1e11 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	value := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(value, 64); err == nil && s > 0 && s < 1e8 {
		return time.Duration(s * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) && at.Sub(now) < 366*24*time.Hour {
		return at.Sub(now)
	}
	return 0
}

// alive extends the connection's timeout whenever data arrives.
type alive struct {
	io.Reader
	idle *time.Timer
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.idle.Reset(idleLimit)
	}
	return n, err
}

// cut shortens a text of the API to n bytes of valid UTF-8.
func cut(s string, n int) string { return strings.ToValidUTF8(format.Truncate(s, n), "") }
