package githubtest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented/internal/github"
)

// Hook is a webhook of the server.
type Hook struct {
	ID     int64
	Repo   string // OWNER/NAME; empty for that of an App or an organization
	Org    string
	URL    string // where deliveries are sent; empty: nowhere
	Secret string
	// Shift is the number of unrelated deliveries that are added before each
	// page of a list is answered, and Repeat that of items which a page repeats
	// from the one before.
	Shift, Repeat int

	list []*delivery // oldest first
	s    *Server
}

// delivery is a delivery that the server recorded.
type delivery struct {
	github.DeliverySummary
	payload json.RawMessage
	gone    bool
}

// AddHook adds a webhook of a repository OWNER/NAME, of an organization (a name
// without a slash), or of the App (an empty name).
func (s *Server) AddHook(of, url, secret string) *Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &Hook{ID: s.id(), URL: url, Secret: secret, s: s}
	switch {
	case strings.Contains(of, "/"):
		h.Repo = of
	default:
		h.Org = of
	}
	s.hooks[h.ID] = h
	return h
}

// Remove removes a webhook, as when it is created again with another id.
func (h *Hook) Remove() {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	delete(h.s.hooks, h.ID)
}

// Record records a delivery that was not sent anywhere, and returns its GUID.
func (h *Hook) Record(event string, payload any) string {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.record(event, payload).GUID
}

func (h *Hook) record(event string, payload any) *delivery {
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	var facts struct{ Action string }
	_ = json.Unmarshal(body, &facts)
	id := h.s.id()
	d := &delivery{payload: body}
	d.ID, d.GUID, d.Event, d.Action = id, fmt.Sprintf("%08x-b361-11eb-836d-%012x", id, h.ID), event, facts.Action
	d.DeliveredAt, d.Status, d.StatusCode = h.s.now().Truncate(time.Second).UTC(), "failed to connect", http.StatusBadGateway
	h.list = append(h.list, d)
	return d
}

// Redeliver adds a delivery with the GUID of an earlier one.
func (h *Hook) Redeliver(guid string) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for _, d := range h.list {
		if d.GUID == guid {
			again := *d
			again.ID, again.Redelivery, again.DeliveredAt, again.gone = h.s.id(), true, h.s.now().UTC(), false
			h.list = append(h.list, &again)
			return
		}
	}
}

// Expire makes the body of a delivery unavailable (410).
func (h *Hook) Expire(guid string) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for _, d := range h.list {
		d.gone = d.gone || d.GUID == guid
	}
}

// Deliver records a delivery and sends it to the address of the webhook. It
// returns the GUID and the status of the answer, 0 if none arrived.
func (h *Hook) Deliver(event string, payload any) (guid string, status int) {
	h.s.mu.Lock()
	d := h.record(event, payload)
	address, secret := h.URL, h.Secret
	h.s.mu.Unlock()
	status = Send(address, secret, event, d.GUID, d.payload)
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if d.StatusCode = status; status/100 == 2 {
		d.Status = "OK"
	}
	return d.GUID, status
}

// Send sends a signed webhook. It returns the status of the answer, 0 if none
// arrived.
func Send(address, secret, event, guid string, body []byte) int {
	r, err := http.NewRequest(http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-GitHub-Event": event, "X-GitHub-Delivery": guid,
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)), "User-Agent": "GitHub-Hookshot/044aadd",
	} {
		r.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func (s *Server) hookRoutes() {
	s.handle("GET /repos/{owner}/{repo}/hooks", s.repo(func(q *request, r *Repo) answer {
		return page(s, q, s.hooksOf(func(h *Hook) bool { return h.Repo == r.Name }))
	}))
	s.handle("GET /orgs/{org}/hooks", func(q *request) answer {
		return page(s, q, s.hooksOf(func(h *Hook) bool { return h.Repo == "" && strings.EqualFold(h.Org, q.PathValue("org")) }))
	})
	of := func(q *request) *Hook {
		h := s.hooks[q.id("hook")]
		if h == nil || !strings.EqualFold(h.Repo, strings.Trim(fullName(q), "/")) || !strings.EqualFold(h.Org, q.PathValue("org")) {
			return nil
		}
		return h
	}
	list := func(q *request) answer { return s.deliveries(q, of(q)) }
	one := func(q *request) answer { return s.delivery(q, of(q)) }
	s.handle("GET /repos/{owner}/{repo}/hooks/{hook}/deliveries", s.repo(func(q *request, _ *Repo) answer { return list(q) }))
	s.handle("GET /repos/{owner}/{repo}/hooks/{hook}/deliveries/{delivery}", s.repo(func(q *request, _ *Repo) answer { return one(q) }))
	s.handle("GET /orgs/{org}/hooks/{hook}/deliveries", list)
	s.handle("GET /orgs/{org}/hooks/{hook}/deliveries/{delivery}", one)
	ofApp := func() *Hook {
		for _, h := range s.hooks {
			if h.Repo == "" && h.Org == "" {
				return h
			}
		}
		return nil
	}
	s.handle("GET /app/hook/deliveries", s.jwt(func(q *request) answer { return s.deliveries(q, ofApp()) }))
	s.handle("GET /app/hook/deliveries/{delivery}", s.jwt(func(q *request) answer { return s.delivery(q, ofApp()) }))
}

func (s *Server) hooksOf(which func(*Hook) bool) []github.Hook {
	out := []github.Hook{}
	for _, h := range s.hooks {
		if which(h) {
			hook := github.Hook{ID: h.ID, Name: "web", Active: true, Events: []string{"*"}}
			hook.Config.URL, hook.Config.ContentType = h.URL, "json"
			out = append(out, hook)
		}
	}
	slices.SortFunc(out, func(a, b github.Hook) int { return int(a.ID - b.ID) })
	return out
}

// deliveries lists deliveries, newest first. A cursor names the delivery from
// which the page starts.
func (s *Server) deliveries(q *request, h *Hook) answer {
	if h == nil {
		return notFound
	}
	for range h.Shift {
		h.record("star", map[string]string{"action": "created"})
	}
	size := 30
	if n, err := strconv.Atoi(q.URL.Query().Get("per_page")); err == nil {
		size = min(max(n, 1), 100)
	}
	end := len(h.list)
	if cursor := q.URL.Query().Get("cursor"); cursor != "" {
		id, err := strconv.ParseInt(strings.TrimPrefix(cursor, "v1_"), 10, 64)
		if err != nil {
			return invalid("Hook", "cursor", "invalid", "")
		}
		end = 0
		for i, d := range h.list {
			if d.ID <= id {
				end = i + 1
			}
		}
		end = min(end+h.Repeat, len(h.list))
	}
	from := max(end-size-h.Repeat, 0)
	out := []github.DeliverySummary{}
	for _, d := range slices.Backward(h.list[from:end]) {
		out = append(out, d.DeliverySummary)
	}
	a := ok(out)
	if from > 0 {
		a.header = http.Header{"Link": {s.link(q, url.Values{"cursor": {fmt.Sprintf("v1_%d", h.list[from-1].ID)}})}}
	}
	return a
}

func (s *Server) delivery(q *request, h *Hook) answer {
	if h == nil {
		return notFound
	}
	for _, d := range h.list {
		if d.ID != q.id("delivery") {
			continue
		}
		if d.gone {
			return fail(http.StatusGone, "The delivery has expired")
		}
		out := github.Delivery{DeliverySummary: d.DeliverySummary}
		out.Request.Headers = map[string]string{
			"Content-Type": "application/json", "X-GitHub-Event": d.Event, "X-GitHub-Delivery": d.GUID, "X-GitHub-Hook-ID": strconv.FormatInt(h.ID, 10),
			"X-Hub-Signature-256": "sha256=********", "User-Agent": "GitHub-Hookshot/044aadd",
		}
		out.Request.Payload = d.payload
		return ok(out)
	}
	return notFound
}
