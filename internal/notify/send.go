package notify

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented/internal/notices"
)

// Limits of one attempt.
const (
	sendTimeout  = 20 * time.Second
	maxAnswer    = 300 // bytes of an answer that are kept
	maxReadBody  = 4 << 10
	longestRetry = time.Hour // longest Retry-After that is followed
)

// Answer is the result of an attempt to send.
type Answer struct {
	OK         bool
	Text       string        // what the other side answered, or why it could not be reached; it may contain secrets
	RetryAfter time.Duration // as it asked; 0: it did not
	Refused    bool          // this message will never be accepted
}

// endpoint is where a channel sends to, with its secrets in the clear.
type endpoint struct {
	kind notices.ChannelKind
	notices.Settings
}

// secrets lists the values that answers must not repeat, the longest first.
func (e *endpoint) secrets() (out []string) {
	for _, v := range e.Sealed() {
		if *v != "" {
			out = append(out, *v)
		}
	}
	out = append(out, partsOf(e.URL)...)
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// minPart is the length from which on a part of a URL may be its secret.
const minPart = 8

// partsOf returns the parts of a URL that may be secret: error pages repeat the path without
// the host.
func partsOf(text string) (out []string) {
	u, err := url.Parse(text)
	if err != nil {
		return nil
	}
	parts := append(strings.Split(u.Path, "/"), strings.Split(u.EscapedPath(), "/")...)
	for name, values := range u.Query() {
		parts = append(append(parts, name), values...)
	}
	for _, part := range append(parts, u.RawQuery) {
		if len(part) >= minPart {
			out = append(out, part)
		}
	}
	return out
}

// sender sends messages to channels.
type sender struct {
	guard  *Guard
	dialer *net.Dialer
	client *http.Client
	roots  *x509.CertPool // of mail servers; nil: those of the machine
	now    func() time.Time
	limit  time.Duration // of an attempt
}

func newSender(g *Guard, now func() time.Time) *sender {
	s := &sender{guard: g, dialer: g.dialer(), now: now, limit: sendTimeout}
	s.client = &http.Client{
		Timeout: sendTimeout,
		// A redirect could lead to any address, with the message.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: s.dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: sendTimeout, MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true,
		},
	}
	return s
}

// send makes one attempt to send a message.
func (s *sender) send(ctx context.Context, to *endpoint, m Message) Answer {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	if to.kind == notices.Email {
		return s.mail(ctx, to, m)
	}
	if err := s.plain(ctx, to.URL); err != nil {
		return Answer{Text: err.Error()}
	}
	r, err := s.request(ctx, to, m)
	if err != nil {
		return Answer{Text: err.Error(), Refused: true}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Agented")
	resp, err := s.client.Do(r)
	if err != nil {
		return Answer{Text: reason(err)}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxReadBody))
	return s.answer(resp, body)
}

// plain refuses a URL without encryption whose address is not in AGENTED_NOTIFY_ALLOW. A named
// secret can change after the channel was saved.
func (s *sender) plain(ctx context.Context, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" {
		return nil // others than https fail
	}
	allowed, err := s.guard.CheckHost(ctx, u.Hostname(), portOf(u))
	if err == nil && !allowed {
		err = &refusal{"the URL must begin with https://: without encryption, only addresses in AGENTED_NOTIFY_ALLOW can be used"}
	}
	return err
}

// request returns the request for a message, and its body.
func (s *sender) request(ctx context.Context, to *endpoint, m Message) (*http.Request, error) {
	address := to.URL
	var body any
	switch to.kind {
	case notices.Slack:
		body = slackBody(m)
	case notices.Teams:
		body = teamsBody(m)
	case notices.Discord:
		body = discordBody(m)
	case notices.Ntfy:
		base, topic, ok := splitTopic(to.URL)
		if !ok {
			return nil, errors.New("the URL has no topic")
		}
		address, body = base, ntfyBody(m, topic)
	default:
		body = webhookBody(m)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("the URL cannot be used")
	}
	if to.kind == notices.Webhook {
		if err := sign(r.Header, to.Secret, m.ID, s.now(), text); err != nil {
			return nil, err
		}
	}
	if to.kind == notices.Ntfy && to.Token != "" {
		r.Header.Set("Authorization", "Bearer "+to.Token)
	}
	return r, nil
}

// answer classifies a response.
func (s *sender) answer(resp *http.Response, body []byte) Answer {
	a := Answer{Text: strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))}
	if text := clean(strings.ToValidUTF8(string(body), "\ufffd")); text != "" {
		a.Text += ": " + text
	}
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		a.OK = true
	case code >= 300 && code < 400:
		a.Text += " (redirects are not followed: set the URL that it leads to)"
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity:
		a.Refused = true
	}
	a.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), s.now())
	return a
}

// retryAfter parses the header Retry-After: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseFloat(text, 64); err == nil && n > 0 {
		d = time.Duration(min(n, longestRetry.Seconds()) * float64(time.Second))
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return max(0, min(d, longestRetry))
}

// reason returns why a request failed, without its URL, which may be a secret.
func reason(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.Error()
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() {
			return fmt.Sprintf("no answer within %s", sendTimeout)
		}
		err = u.Err
	}
	return clean(err.Error())
}
