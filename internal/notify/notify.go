// Package notify sends the stored notifications to their channels: each at least once, those
// of a channel in order, and independently of the other channels.
package notify

import (
	"context"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
)

// Times of the queue.
const (
	giveUpAfter = 24 * time.Hour
	// A channel must have failed for minTrouble before anything is given up: after a day in
	// which the server did not run, the network may not be up yet.
	minTrouble  = 10 * time.Minute
	firstRetry  = 5 * time.Second
	maxRetry    = 10 * time.Minute
	maxRefusals = 3                // attempts for a message that the other side refuses
	poll        = 30 * time.Second // between looks at parked executions and digests
)

// Options configure a Notifier.
type Options struct {
	DB          *store.DB
	Guard       *Guard
	Open        func(channel, field, sealed string) (string, error)    // opens a sealed setting
	Secret      func(ctx context.Context, name string) (string, error) // value of a named secret
	Mask        func(string) string                                    // masks the known secrets
	Base        func() string                                          // public URL of the server; empty: unknown
	ParkedAfter func() time.Duration                                   // how long an execution may be parked; 0: without limit
	Zone        func() *time.Location                                  // of digests that name none
	Waiting     func(ctx context.Context, now time.Time) []string      // for digests: what waits for a person, beyond what the store knows; may be nil
	Roots       *x509.CertPool                                         // of mail servers; nil: those of the machine
	Now         func() time.Time                                       // nil: time.Now
	Log         *slog.Logger
}

// Notifier sends notifications. Create it with New.
type Notifier struct {
	o      Options
	sender *sender
	wake   chan struct{}

	mu      sync.Mutex
	busy    map[string]bool      // channels with a worker
	failing map[string]time.Time // by channel: the first of the attempts that have failed without a success
	workers sync.WaitGroup
}

// New returns a Notifier.
func New(o Options) *Notifier {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Mask == nil {
		o.Mask = func(s string) string { return s }
	}
	if o.Base == nil {
		o.Base = func() string { return "" }
	}
	if o.ParkedAfter == nil {
		o.ParkedAfter = func() time.Duration { return 0 }
	}
	if o.Zone == nil {
		o.Zone = func() *time.Location { return time.Local }
	}
	s := newSender(o.Guard, o.Now)
	s.roots = o.Roots
	return &Notifier{o: o, sender: s, wake: make(chan struct{}, 1), busy: map[string]bool{}, failing: map[string]time.Time{}}
}

// Wake makes Run look for notifications to send.
func (n *Notifier) Wake() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (n *Notifier) now() time.Time { return n.o.Now().UTC().Truncate(time.Microsecond) }

// Run sends notifications until ctx ends.
func (n *Notifier) Run(ctx context.Context) {
	defer n.workers.Wait()
	var polled time.Time
	absence := poll // until one can be due
	for {
		now := n.now()
		if now.Sub(polled) >= min(poll, absence) || now.Before(polled) {
			polled = now
			n.look(ctx, now)
			absence = n.absence(ctx, now)
		}
		wait := min(poll, absence)
		if next := n.start(ctx, now); !next.IsZero() {
			wait = min(wait, max(next.Sub(now), 10*time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-n.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// look stores the notifications that are due by time.
func (n *Notifier) look(ctx context.Context, now time.Time) {
	if after := n.o.ParkedAfter(); after > 0 {
		if err := n.o.DB.NotifyParked(ctx, now.Add(-after), now); err != nil && ctx.Err() == nil {
			n.o.Log.Warn("look for parked executions to notify about", "err", err)
		}
	}
	if err := n.digests(ctx, now); err != nil && ctx.Err() == nil {
		n.o.Log.Warn("write a digest", "err", err)
	}
}

// absence stores the notifications about triggers that have not succeeded in time, and returns how
// long after now there can be the next one.
func (n *Notifier) absence(ctx context.Context, now time.Time) time.Duration {
	next, err := n.o.DB.NotifyAbsent(ctx, now)
	if err != nil && ctx.Err() == nil {
		n.o.Log.Warn("look for triggers that have not succeeded in time", "err", err)
	}
	if next == 0 {
		return poll
	}
	return max(next, 10*time.Millisecond)
}

// start starts a worker for each channel that has something to send, and returns when the next
// other one has.
func (n *Notifier) start(ctx context.Context, now time.Time) (next time.Time) {
	var channels []string
	err := n.o.DB.View(ctx, "notifications", func(q notices.Querier) (err error) {
		channels, next, err = notices.Due(q, now)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			n.o.Log.Warn("read the notifications to send", "err", err)
		}
		return next
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range channels {
		if n.busy[id] {
			continue
		}
		n.busy[id] = true
		n.workers.Go(func() {
			n.drain(ctx, id)
			n.mu.Lock()
			delete(n.busy, id)
			n.mu.Unlock()
			n.Wake() // something may have come after the last look
		})
	}
	return next
}

// drain sends what is due of a channel, one after the other.
func (n *Notifier) drain(ctx context.Context, channel string) {
	for ctx.Err() == nil {
		sent, err := n.sendNext(ctx, channel)
		if err != nil && ctx.Err() == nil {
			n.o.Log.Warn("send a notification", "channel", channel, "err", err)
			select { // the database is in trouble
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			return
		}
		if !sent {
			return
		}
	}
}

// sendNext makes one attempt to send the next notification of a channel. It reports whether
// there may be another one.
func (n *Notifier) sendNext(ctx context.Context, channel string) (more bool, err error) {
	var one *notices.Notification
	var c *notices.Channel
	err = n.o.DB.Update(ctx, "begin a notification", func(tx store.Tx) (err error) {
		if one, err = notices.Begin(tx, channel, n.now()); err != nil || one == nil {
			return err
		}
		c, err = notices.ChannelOf(tx, channel)
		return err
	})
	if err != nil || one == nil {
		return false, err
	}
	var a Answer
	to, err := n.open(ctx, c)
	if err == nil {
		a = n.sender.send(ctx, to, message(one, n.o.Base(), n.o.Mask))
	} else {
		a = Answer{Text: agented.Message(err)}
	}
	if ctx.Err() != nil && !a.OK {
		return false, nil // the next server sends it again
	}
	now := n.now()
	n.settle(one, a, to, now)
	return one.Status != notices.Pending, n.end(ctx, c, one, now)
}

// settle sets what follows an attempt.
func (n *Notifier) settle(one *notices.Notification, a Answer, to *endpoint, now time.Time) {
	one.Answer = n.hide(a.Text, to)
	trouble := n.trouble(one.Channel, a.OK, now)
	switch {
	case a.OK:
		one.Status = notices.Sent
	case now.Sub(one.Position) >= giveUpAfter && trouble >= minTrouble, a.Refused && one.Attempts >= maxRefusals:
		one.Status = notices.GaveUp
	default:
		one.Status, one.RetryAt = notices.Pending, now.Add(max(a.RetryAfter, pause(one.Attempts)))
		if last := one.Position.Add(giveUpAfter); one.RetryAt.After(last) && now.Before(last) {
			one.RetryAt = last
		}
	}
}

// trouble records the result of an attempt, and returns for how long this server has failed to
// reach the channel.
func (n *Notifier) trouble(channel string, ok bool, now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ok {
		delete(n.failing, channel)
		return 0
	}
	since, known := n.failing[channel]
	if !known || since.After(now) {
		n.failing[channel], since = now, now
	}
	return now.Sub(since)
}

// end stores how an attempt ended. A notification that is given up is reported to the other
// channels.
func (n *Notifier) end(ctx context.Context, c *notices.Channel, one *notices.Notification, now time.Time) error {
	// The message is out: that is stored although the server stops.
	ctx = context.WithoutCancel(ctx)
	gaveUp := one.Status == notices.GaveUp
	if gaveUp {
		n.o.Log.Error("gave up a notification", "channel", c.Name, "notification", one.ID, "kind", one.Kind, "attempts", one.Attempts, "answer", one.Answer)
	}
	return n.o.DB.Together(ctx, "end a notification", true, func(ctx context.Context) error {
		err := n.o.DB.Update(ctx, "end a notification", func(tx store.Tx) error { return notices.End(tx, one, now) })
		if err != nil || !gaveUp || one.Kind == agented.NotifyChannel {
			return err
		}
		return n.o.DB.Notify(ctx, agented.Notice{
			Kind: agented.NotifyChannel, Subject: c.ID, At: now,
			Text: "channel " + c.Name + " gave up a notification (" + string(one.Kind) + "): " + one.Answer,
		})
	})
}

// pause returns the pause after a number of attempts.
func pause(attempts int) time.Duration {
	d := firstRetry << min(max(attempts-1, 0), 20)
	d = min(d, maxRetry)
	return d - time.Duration(rand.Int64N(int64(d/5))) // clients of one broken service must not come at once
}

// open returns where a channel sends to, with its secrets.
func (n *Notifier) open(ctx context.Context, c *notices.Channel) (*endpoint, error) {
	e := &endpoint{kind: c.Kind, Settings: c.Settings}
	for field, value := range e.Sealed() {
		if *value == "" {
			continue
		}
		var err error
		if name, ok := agented.RefersTo(*value); ok {
			*value, err = n.o.Secret(ctx, name)
		} else {
			*value, err = n.o.Open(c.ID, field, *value)
		}
		if err != nil {
			for _, v := range e.Sealed() {
				*v = "" // nothing that is sealed must be shown
			}
			return e, err
		}
	}
	return e, nil
}

// hide masks the known secrets and those of the channel in an answer, and shortens it: a
// secret that is cut would not be found.
func (n *Notifier) hide(text string, to *endpoint) string {
	text = n.o.Mask(text)
	if to != nil {
		secrets := to.secrets()
		text = redact.New(secrets).MaskString(text)
		for _, s := range secrets {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return format.Truncate(text, maxAnswer)
}

// Test sends a test message to a channel now, outside of the queue, and records it.
func (n *Notifier) Test(ctx context.Context, c *notices.Channel) (*notices.Notification, error) {
	now := n.now()
	one := &notices.Notification{
		Notice: agented.Notice{Kind: notices.KindTest, Text: "This is a test message: the channel " + c.Name + " works.", At: now},
		ID:     agented.NewID("ntf", now), Channel: c.ID, ChannelName: c.Name, Attempts: 1,
	}
	to, err := n.open(ctx, c)
	if err != nil {
		return nil, err
	}
	a := n.sender.send(ctx, to, message(one, n.o.Base(), n.o.Mask))
	one.Status, one.Answer, one.SettledAt = notices.Sent, n.hide(a.Text, to), now
	if !a.OK {
		one.Status = notices.GaveUp
	}
	err = n.o.DB.Update(ctx, "record a test", func(tx store.Tx) error { return notices.Record(tx, one) })
	return one, err
}
