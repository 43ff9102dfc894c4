// Package pull fetches deliveries of webhooks from GitHub that did not reach the
// server: those from while it was down, and all of them where it has no public
// address. They are stored in the order in which GitHub delivered them, each
// once, in the same ledger as those that are received.
package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/intake"
	"github.com/agented/agented/internal/store"
)

const (
	// overlap is how much of the handled time is listed again: a delivery may
	// appear in the list after newer ones.
	overlap = 5 * time.Minute
	// window is how long GitHub keeps deliveries.
	window    = 3 * 24 * time.Hour
	maxPages  = 2000
	saveEvery = 25 // deliveries
	idle      = time.Minute
)

// Options configures a Puller. All fields but Sleep are required.
type Options struct {
	DB     *store.DB
	Intake *intake.Intake
	// Client returns the client of GitHub's API, nil without a credential.
	Client func() *github.Client
	Config func() *config.Config
	Log    *slog.Logger
	Now    func() time.Time
	// Sleep waits; it returns ctx's error if that ends first. If nil, real time
	// passes.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Puller fetches deliveries.
type Puller struct {
	o Options

	mu     sync.Mutex // guards status
	status map[string]*agented.PullStatus

	hooks  map[string]found // by source; used by Run only
	failed map[string]int   // rounds in which a body could not be fetched, by GUID; used by Run only
	// When deliveries were stored as lost, by GUID; nil before they are read; used by Run only.
	lost map[string]time.Time
}

// New returns a Puller.
func New(o Options) *Puller {
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return &Puller{o: o, status: map[string]*agented.PullStatus{}, hooks: map[string]found{}, failed: map[string]int{}}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run fetches deliveries at once and then at the interval of the settings, until
// ctx is done.
func (p *Puller) Run(ctx context.Context) {
	for ctx.Err() == nil {
		p.Round(ctx)
		every := p.o.Config().GitHubPull
		if every == 0 {
			every = idle
		}
		_ = p.o.Sleep(ctx, every)
	}
}

// Round fetches what every webhook has delivered.
func (p *Puller) Round(ctx context.Context) {
	list := p.sources()
	p.forget(list)
	if err := p.loadLost(ctx); err != nil {
		p.o.Log.Error("read the deliveries that could not be fetched", "err", err)
		return
	}
	for _, s := range list {
		if ctx.Err() != nil {
			return
		}
		st, err := p.load(ctx, s.name)
		if err == nil {
			err = p.pull(ctx, s, &st)
		}
		if ctx.Err() != nil {
			return
		}
		p.finish(ctx, s, &st, err)
	}
}

// finish records the result of a round.
func (p *Puller) finish(ctx context.Context, s source, st *state, err error) {
	problem := ""
	if err == nil {
		st.success = p.o.Now()
	}
	if err = errors.Join(err, p.save(ctx, s.name, *st)); err != nil {
		problem = describe(err)
	}
	before := ""
	p.update(s.name, func(v *agented.PullStatus) {
		before = v.Problem
		v.Problem, v.RetryAt, v.LastSuccess = problem, time.Time{}, st.success
		if problem == "" {
			v.Waiting, v.OldestWait = 0, time.Time{}
		}
	})
	switch {
	case problem != "" && problem != before:
		p.o.Log.Warn("deliveries could not be fetched from GitHub", "source", s.name, "err", problem)
	case problem == "" && before != "":
		p.o.Log.Info("deliveries are fetched from GitHub again", "source", s.name)
	}
}

// describe returns an error as a sentence for people.
func describe(err error) string {
	if e, ok := errors.AsType[*github.Error](err); ok {
		return e.Error()
	}
	return agented.Message(err)
}

// Status returns the state of every source, by name. It is empty if nothing is
// fetched.
func (p *Puller) Status() []agented.PullStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []agented.PullStatus{}
	for _, v := range p.status {
		out = append(out, *v)
	}
	slices.SortFunc(out, func(a, b agented.PullStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (p *Puller) update(name string, f func(*agented.PullStatus)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.status[name]
	if v == nil {
		v = &agented.PullStatus{Name: name}
		p.status[name] = v
	}
	f(v)
}

// forget removes the state of sources that are no longer fetched.
func (p *Puller) forget(list []source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.status {
		if !slices.ContainsFunc(list, func(s source) bool { return s.name == name }) {
			delete(p.status, name)
		}
	}
}

// call makes a call of the API, and repeats it while that can help: after the
// time that a rate limit names, and a few times after a failure of GitHub.
func (p *Puller) call(ctx context.Context, name string, f func() error) error {
	for try := 0; ; {
		err := f()
		at, retry := github.RetryAt(err)
		if err == nil || !retry || ctx.Err() != nil {
			return err
		}
		wait := at.Sub(p.o.Now())
		if at.IsZero() {
			if try++; try > 5 {
				return err
			}
			wait = time.Second << (try - 1)
		}
		p.update(name, func(v *agented.PullStatus) { v.RetryAt, v.Problem = at, describe(err) })
		if err := p.o.Sleep(ctx, max(wait, 10*time.Millisecond)); err != nil {
			return err
		}
		p.update(name, func(v *agented.PullStatus) { v.RetryAt, v.Problem = time.Time{}, "" })
	}
}

// item is a delivery to fetch.
type item struct {
	guid, event, action string
	at, last            time.Time // when GitHub delivered it first and last
	first               int64     // its first id
	ids                 []int64   // of all deliveries with the GUID, newest first
}

// pull fetches what a webhook has delivered since the last round.
func (p *Puller) pull(ctx context.Context, s source, st *state) error {
	c := p.o.Client()
	if c == nil {
		return agented.Errorf(agented.Unavailable, "no credential for GitHub's API is set")
	}
	hook, err := p.find(ctx, c, s)
	if err != nil {
		return err
	}
	filter, err := p.o.Intake.Filter(hook.of)
	if err != nil {
		return err
	}
	oldest, wanted := filter.Since()
	if !wanted {
		// A trigger that is enabled later fires for nothing from before.
		st.advance(p.o.Now().Add(c.Skew()))
		return nil
	}
	since := st.position.Add(-overlap)
	if now := p.o.Now().Add(c.Skew()); st.position.IsZero() {
		since = now.Add(-window)
	} else if now.Sub(st.position) > window {
		p.o.Log.Warn("the server was away for longer than GitHub keeps deliveries: older ones are lost", "source", s.name, "handled_until", st.position)
	}
	if since.Before(oldest.Add(c.Skew())) {
		since = oldest.Add(c.Skew())
	}
	items, newest, err := p.list(ctx, c, s, hook, since, filter)
	if err != nil {
		return err
	}
	items, err = p.unknown(ctx, hook, items, c.Skew())
	if err != nil {
		return err
	}
	if err := p.admit(ctx, c, s, hook, items, st); err != nil {
		return err
	}
	st.advance(newest)
	return nil
}

// list returns the deliveries since a time that some rule wants, in their order,
// and the time of the newest delivery.
func (p *Puller) list(ctx context.Context, c *github.Client, s source, h found, since time.Time, filter *intake.Filter) (items []*item, newest time.Time, err error) {
	byGUID := map[string]*item{}
	seen := map[int64]bool{}
	cursor := ""
	for range maxPages {
		var page []github.DeliverySummary
		next := ""
		err := p.call(ctx, s.name, func() (err error) {
			page, next, err = c.Deliveries(ctx, h.hook, cursor)
			return err
		})
		if err != nil {
			return nil, newest, err
		}
		older, fresh := false, 0
		for _, d := range page {
			if seen[d.ID] {
				continue
			}
			seen[d.ID] = true
			fresh++
			if d.DeliveredAt.After(newest) {
				newest = d.DeliveredAt
			}
			if d.DeliveredAt.Before(since) {
				older = true
				continue
			}
			if filter.Wants(d.Event, d.Action, d.DeliveredAt.Add(-c.Skew())) {
				add(byGUID, d)
			}
		}
		if older || next == "" || next == cursor || fresh == 0 {
			break
		}
		cursor = next
	}
	for _, i := range byGUID {
		items = append(items, i)
	}
	slices.SortFunc(items, func(a, b *item) int {
		if n := a.at.Compare(b.at); n != 0 {
			return n
		}
		return int(min(max(a.first-b.first, -1), 1))
	})
	return items, newest, nil
}

// add adds a delivery to the item with its GUID.
func add(byGUID map[string]*item, d github.DeliverySummary) {
	i := byGUID[d.GUID]
	if i == nil {
		i = &item{guid: d.GUID, event: d.Event, action: d.Action, at: d.DeliveredAt, last: d.DeliveredAt, first: d.ID}
		byGUID[d.GUID] = i
	}
	i.ids = append(i.ids, d.ID)
	if d.DeliveredAt.Before(i.at) || d.DeliveredAt.Equal(i.at) && d.ID < i.first {
		i.at, i.first = d.DeliveredAt, d.ID
	}
	if d.DeliveredAt.After(i.last) {
		i.last = d.DeliveredAt
	}
}

// unknown returns the items that are neither in the ledger nor stored as lost. A
// lost delivery that was redelivered since is tried again.
func (p *Puller) unknown(ctx context.Context, h found, items []*item, skew time.Duration) ([]*item, error) {
	keys := make([]string, len(items))
	for i, it := range items {
		keys[i] = intake.PulledKey(it.guid)
	}
	known, err := p.o.DB.KnownDeliveries(ctx, h.of.Endpoint, keys)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(items, func(i *item) bool {
		at, lost := p.lost[i.guid]
		return known[intake.PulledKey(i.guid)] || lost && !i.last.Add(-skew).After(at)
	}), nil
}

// admit fetches and stores the items in their order.
func (p *Puller) admit(ctx context.Context, c *github.Client, s source, h found, items []*item, st *state) error {
	for n, i := range items {
		p.update(s.name, func(v *agented.PullStatus) { v.Waiting, v.OldestWait = len(items)-n, i.at.Add(-c.Skew()) })
		if err := ctx.Err(); err != nil {
			return err
		}
		got, err := p.fetch(ctx, c, s, h, i)
		if err != nil {
			return err
		}
		res, err := p.o.Intake.Pull(ctx, got)
		if err != nil {
			return err
		}
		if res.Delivery.Verdict == agented.VerdictRejected && !res.Duplicate {
			p.lost[i.guid] = p.o.Now()
			st.lost++
		} else if !res.Duplicate {
			st.pulled++
		}
		p.update(s.name, func(v *agented.PullStatus) { v.Pulled, v.Lost = st.pulled, st.lost })
		// Everything before this delivery is handled.
		if st.advance(i.at); n%saveEvery == saveEvery-1 {
			if err := p.save(ctx, s.name, *st); err != nil {
				return err
			}
		}
	}
	if len(items) > 0 {
		p.o.Log.Info("deliveries fetched from GitHub", "source", s.name, "deliveries", len(items))
	}
	return nil
}

// maxFailed is the number of rounds after which a delivery whose body cannot be
// fetched is given up, so that the following ones are not held up for good.
const maxFailed = 10

// fetch returns a delivery with its body, or with the reason why there is none.
func (p *Puller) fetch(ctx context.Context, c *github.Client, s source, h found, i *item) (intake.Pulled, error) {
	out := intake.Pulled{Header: http.Header{"X-Github-Delivery": {i.guid}}, Hook: h.of, GUID: i.guid, At: i.at.Add(-c.Skew()), From: c.Host(), Event: i.event, Action: i.action}
	for _, id := range i.ids {
		var d github.Delivery
		err := p.call(ctx, s.name, func() (err error) {
			d, err = c.Delivery(ctx, h.hook, id)
			return err
		})
		switch {
		case err == nil && d.GUID == i.guid:
			out.Header, out.Body, out.Problem = header(d), d.Request.Payload, ""
			delete(p.failed, i.guid)
			return out, nil
		case err == nil:
			out.Problem = "GitHub's API returned another delivery than the one in its list"
		case errors.Is(err, agented.NotFound), errors.Is(err, agented.TooLarge):
			out.Problem = "the body of the delivery " + i.guid + " is no longer available from GitHub: " + describe(err)
		default:
			if p.failed[i.guid]++; ctx.Err() != nil || p.failed[i.guid] < maxFailed {
				return out, err
			}
			out.Problem = fmt.Sprintf("the body of the delivery %s could not be fetched %d times: %s", i.guid, maxFailed, describe(err))
		}
	}
	delete(p.failed, i.guid)
	return out, nil
}
