package pull

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/intake"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/store"
)

// SourceApp is the name of the webhook of the GitHub App.
const SourceApp = "app"

// source is a place with a webhook whose deliveries are fetched.
type source struct {
	name string // app, owner/name, or the name of an organization
	hook int64  // id of the webhook; 0: the one that has an address of this server's
}

// found is the webhook of a source.
type found struct {
	hook github.HookSource
	of   intake.Hook
	at   time.Time
}

// findEvery is how long the webhook of a source is remembered.
const findEvery = 10 * time.Minute

// sources returns what is fetched according to the settings. Without a list, it
// is the webhook of the App; with a token only, those of the repositories that
// rules name.
func (p *Puller) sources() []source {
	c, hub := p.o.Config(), p.o.Client()
	if c.GitHubPull == 0 || hub == nil {
		return nil
	}
	names := c.GitHubHooks
	if len(names) == 0 && hub.HasApp() {
		names = []string{SourceApp}
	} else if len(names) == 0 {
		var err error
		if names, err = p.o.Intake.Repositories(); err != nil {
			p.o.Log.Error("read the repositories of webhooks", "err", err)
		}
	}
	var out []source
	seen := map[string]bool{}
	for _, text := range names {
		name, id, _ := strings.Cut(strings.ToLower(text), "#")
		hook, _ := strconv.ParseInt(id, 10, 64)
		if !seen[name] {
			seen[name] = true
			out = append(out, source{name, hook})
		}
	}
	return out
}

// find returns the webhook of a source. It is searched again from time to time,
// because a webhook that was created again has another id.
func (p *Puller) find(ctx context.Context, c *github.Client, s source) (found, error) {
	if s.name == SourceApp {
		return found{of: intake.Hook{Endpoint: agented.EndpointGitHub, App: true}}, nil
	}
	now := p.o.Now()
	if h, ok := p.hooks[s.name]; ok && now.Sub(h.at).Abs() < findEvery && (s.hook == 0 || s.hook == h.hook.Hook) {
		return h, nil
	}
	delete(p.hooks, s.name)
	h := found{at: now}
	var list []github.Hook
	err := p.call(ctx, s.name, func() (err error) {
		if !strings.Contains(s.name, "/") {
			h.hook.Org = s.name
			list, err = c.OrgHooks(ctx, s.name)
			return err
		}
		if h.hook.Repository, err = github.ParseRepository(s.name); err == nil {
			h.of.Repository = s.name
			list, err = c.RepositoryHooks(ctx, h.hook.Repository)
		}
		return err
	})
	if err != nil {
		return h, err
	}
	one, err := choose(s, list)
	if err != nil {
		return h, err
	}
	h.hook.Hook, h.of.Endpoint = one.ID, endpoint(one.Config.URL)
	if h.of.Endpoint == "" {
		h.of.Endpoint = agented.EndpointGitHub
	}
	p.hooks[s.name] = h
	p.update(s.name, func(v *agented.PullStatus) { v.Hook = one.ID })
	return h, nil
}

// choose returns the webhook of a source in a list.
func choose(s source, list []github.Hook) (github.Hook, error) {
	var fit []github.Hook
	for _, h := range list {
		if h.ID == s.hook || s.hook == 0 && endpoint(h.Config.URL) != "" {
			fit = append(fit, h)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case s.hook != 0:
		return github.Hook{}, agented.Errorf(agented.Conflict, "%s has no webhook %d: correct AGENTED_GITHUB_HOOKS", s.name, s.hook)
	case len(fit) == 0:
		return github.Hook{}, agented.Errorf(agented.Conflict,
			"%s has no webhook whose address ends in /hooks/github: create one, or name another one in AGENTED_GITHUB_HOOKS as %s#ID", s.name, s.name)
	}
	ids := make([]string, len(fit))
	for i, h := range fit {
		ids[i] = fmt.Sprint(h.ID)
	}
	return github.Hook{}, agented.Errorf(agented.Conflict, "%s has several webhooks that could be meant (%s): name one in AGENTED_GITHUB_HOOKS as %s#ID", s.name, strings.Join(ids, ", "), s.name)
}

// endpoint returns the endpoint of an address of a server like this one, "" for
// any other address. The host is not compared: it may be one that does not exist.
func endpoint(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	path := strings.TrimRight(u.Path, "/")
	if strings.HasSuffix(path, "/hooks/github") || strings.HasSuffix(path, "/api/webhooks/github") {
		return agented.EndpointGitHub
	}
	if _, id, ok := strings.Cut(path, "/hooks/"); ok && agented.ValidID("trg", id) {
		return id
	}
	return ""
}

// header returns the headers that GitHub sent. The payload of the API is JSON,
// also where the webhook sends forms.
func header(d github.Delivery) http.Header {
	h := http.Header{}
	for name, value := range d.Request.Headers {
		if len(name) < 100 && len(value) < 1000 {
			h.Set(name, value)
		}
	}
	h.Set("Content-Type", "application/json")
	h.Del("Content-Encoding")
	h.Del("X-Hub-Signature")
	h.Del("X-Hub-Signature-256")
	return h
}

// state is the durable state of a source.
type state struct {
	position, success time.Time
	pulled, lost      int64
}

// advance moves the position forward.
func (s *state) advance(to time.Time) {
	if to.After(s.position) {
		s.position = to
	}
}

func (p *Puller) load(ctx context.Context, name string) (state, error) {
	var st state
	var position, success int64
	err := p.o.DB.View(ctx, "pull source", func(q notices.Querier) error {
		rows, err := q.Query(`SELECT position, success_at, pulled, lost FROM pull_source WHERE name = $1`, name)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := rows.Scan(&position, &success, &st.pulled, &st.lost); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if position > 0 {
		st.position = time.UnixMicro(position).UTC()
	}
	if success > 0 {
		st.success = time.UnixMicro(success).UTC()
	}
	p.update(name, func(v *agented.PullStatus) {
		v.Position, v.LastSuccess, v.Pulled, v.Lost = st.position, st.success, st.pulled, st.lost
	})
	return st, err
}

// loadLost reads which deliveries are stored as lost, so that a restart does not
// store them again.
func (p *Puller) loadLost(ctx context.Context) error {
	if p.lost != nil {
		return nil
	}
	lost := map[string]time.Time{}
	page := store.Page{Limit: store.MaxLimit}
	for {
		list, next, err := p.o.DB.Deliveries(ctx, store.DeliveryFilter{Verdict: agented.VerdictRejected, After: p.o.Now().Add(-window - time.Hour)}, page)
		if err != nil {
			return err
		}
		for _, d := range list {
			if guid := d.Headers[guidHeader]; d.Pulled && d.ReceivedAt.After(lost[guid]) {
				lost[guid] = d.ReceivedAt
			}
		}
		if page.Cursor = next; next == "" {
			p.lost = lost
			return nil
		}
	}
}

// guidHeader is the header with the id of a delivery.
const guidHeader = "X-Github-Delivery"

func (p *Puller) save(ctx context.Context, name string, st state) error {
	micros := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.UnixMicro()
	}
	err := p.o.DB.Update(ctx, "pull source", func(tx store.Tx) error {
		return tx.Exec(`INSERT INTO pull_source (name, position, success_at, pulled, lost) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (name) DO UPDATE SET position = excluded.position, success_at = excluded.success_at, pulled = excluded.pulled, lost = excluded.lost`,
			name, micros(st.position), micros(st.success), st.pulled, st.lost)
	})
	if err == nil {
		p.update(name, func(v *agented.PullStatus) { v.Position = st.position })
	}
	return err
}
