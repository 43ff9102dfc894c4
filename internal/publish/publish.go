// Package publish writes to a forge what executions propose: it works off the publications of the
// store, each exactly once. A publication that may have been written is looked up before it is
// written again, by its branch or by its marker.
package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/proposal"
	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/store"
)

// Options configures a Publisher.
type Options struct {
	DB     *store.DB
	Layout agented.Layout
	Git    func() changes.Git
	// Forge returns the forge with the current credentials. Its error is a message for users.
	Forge func() (Forge, error)
	// Mirror returns where objects of an execution's repository are on this machine; may be nil.
	Mirror   func(agented.ExecutionID) (objects, shallow string)
	Observed func(agented.PublicationKind, agented.PublicationStatus) // a publication got its final status; may be nil
	Now      func() time.Time                                         // nil means time.Now
	Log      *slog.Logger
}

const (
	atOnce          = 4 // repositories that are written to at the same time
	oneTime         = 15 * time.Minute
	idle            = time.Minute
	batch           = 1000
	firstPause      = 5 * time.Second
	longest         = 15 * time.Minute
	credentialPause = time.Minute    // longest pause until the credential is looked for again
	GiveUpAfter     = 24 * time.Hour // after which a publication that cannot be written fails
	HoldFor         = 30 * 24 * time.Hour
)

// Publisher works off the publications.
type Publisher struct {
	o    Options
	wake chan struct{}

	pause time.Duration // after the first failed try

	mu   sync.Mutex // guards busy
	busy map[string]bool
}

// New returns a publisher that is not running yet.
func New(o Options) *Publisher {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Publisher{o: o, wake: make(chan struct{}, 1), pause: firstPause, busy: map[string]bool{}}
}

func (p *Publisher) now() time.Time { return p.o.Now().UTC().Truncate(time.Microsecond) }

// Wake makes the publisher look for work.
func (p *Publisher) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// folder holds the repositories in which commits are built.
func (p *Publisher) folder() string { return filepath.Join(p.o.Layout.Root, "publish") }

// Run works until ctx is cancelled, and returns when nothing is being written any more.
func (p *Publisher) Run(ctx context.Context) {
	if err := remove.All(p.folder()); err != nil {
		p.o.Log.Warn("remove the folder of an earlier server", "err", err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		next, err := p.start(ctx, &running)
		if err != nil && ctx.Err() == nil {
			p.o.Log.Error("read the publications", "err", err)
			next = firstPause
		}
		timer.Reset(next)
	}
}

// start begins to write the first publication of each repository that is due, and returns after
// which time the next one is.
func (p *Publisher) start(ctx context.Context, running *sync.WaitGroup) (time.Duration, error) {
	list, err := p.o.DB.OpenPublications(ctx, batch)
	if err != nil {
		return 0, err
	}
	now := p.now()
	wait := idle
	seen := map[string]bool{}
	for i := range list {
		v := &list[i]
		if v.Status == agented.PublicationHeld {
			if now.Sub(v.UpdatedAt) > HoldFor {
				p.expire(ctx, v)
			}
			continue
		}
		key := strings.ToLower(v.Repository)
		if seen[key] {
			continue // in order within a repository
		}
		seen[key] = true
		if left := v.DueAt.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		if !p.take(key) {
			continue // its end wakes the loop
		}
		running.Go(func() {
			defer p.Wake()
			defer p.leave(key)
			p.process(ctx, v)
		})
	}
	return max(wait, 10*time.Millisecond), nil
}

func (p *Publisher) take(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[key] || len(p.busy) >= atOnce {
		return false
	}
	p.busy[key] = true
	return true
}

func (p *Publisher) leave(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, key)
}

// expire rejects a publication that was held for too long.
func (p *Publisher) expire(ctx context.Context, v *agented.Publication) {
	_, err := p.o.DB.DecidePublication(ctx, v.Execution, v.Number, false, fmt.Sprintf("the server: it was held for %d days", HoldFor/(24*time.Hour)), time.Time{}, p.now())
	if err != nil && ctx.Err() == nil {
		p.o.Log.Error("reject a held publication", "execution", v.Execution, "number", v.Number, "err", err)
	}
}

// process writes one publication, and stores what came of it.
func (p *Publisher) process(ctx context.Context, v *agented.Publication) {
	timed, cancel := context.WithTimeout(ctx, oneTime)
	defer cancel()
	err := p.write(timed, v)
	if ctx.Err() != nil {
		return // the next server continues
	}
	p.settle(v, err)
	now := p.now()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, longest) {
		err := p.o.DB.SetPublication(ctx, v, now)
		if err == nil {
			break
		}
		if errors.Is(err, agented.Conflict) || ctx.Err() != nil {
			return
		}
		p.o.Log.Error("store a publication", "execution", v.Execution, "number", v.Number, "err", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	p.o.Log.Info("publication", "execution", v.Execution, "number", v.Number, "kind", v.Kind, "repository", v.Repository,
		"status", v.Status, "rule", v.Rule, "reason", v.Reason, "tries", v.Tries)
	if v.Status.Final() && p.o.Observed != nil {
		p.o.Observed(v.Kind, v.Status)
	}
}

// refused is the error of a rule that does not allow a publication.
type refused struct{ rule, reason string }

func (r *refused) Error() string { return r.reason }

// stopped is the error of a publication that is not written now.
type stopped struct {
	status agented.PublicationStatus // held or superseded
	reason string
}

func (s *stopped) Error() string { return s.reason }

// passing is an error that may not occur again.
type passing struct {
	text   string
	cause  error
	within time.Duration // longest pause; 0: the usual one
}

func (e *passing) Error() string { return e.text }
func (e *passing) Unwrap() error { return e.cause }

// settle sets the status of a publication after a try.
func (p *Publisher) settle(v *agented.Publication, err error) {
	v.DueAt = time.Time{}
	if err == nil {
		v.Status, v.Reason, v.Rule = agented.PublicationPublished, "", ""
		return
	}
	if r, ok := errors.AsType[*refused](err); ok {
		v.Status, v.Rule, v.Reason = agented.PublicationRefused, r.rule, r.reason
		return
	}
	if s, ok := errors.AsType[*stopped](err); ok {
		v.Status, v.Reason = s.status, s.reason
		return
	}
	v.Reason = sentence(err)
	at, again := p.retryAt(err)
	now := p.now()
	if v.GiveUpAt.IsZero() {
		v.GiveUpAt = v.CreatedAt.Add(GiveUpAfter)
	}
	if !again {
		v.Status = agented.PublicationFailed
		return
	}
	v.Tries++
	pause := min(p.pause<<min(v.Tries-1, 10), longest)
	if e, ok := errors.AsType[*passing](err); ok && e.within > 0 {
		pause = min(pause, e.within)
	}
	pause += time.Duration(rand.Int64N(int64(pause / 4)))
	v.DueAt = now.Add(pause)
	if at.After(v.DueAt) {
		v.DueAt = at
	}
	if v.DueAt.After(v.GiveUpAt) {
		v.Status, v.DueAt = agented.PublicationFailed, time.Time{}
		v.Reason = fmt.Sprintf("Given up after %d tries: %s", v.Tries, v.Reason)
	}
}

// retryAt reports whether a publication can be tried again after an error, and when at the
// earliest.
func (p *Publisher) retryAt(err error) (time.Time, bool) {
	if _, ok := errors.AsType[*passing](err); ok {
		return time.Time{}, true
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return time.Time{}, true
	}
	f, forgeErr := p.o.Forge()
	if forgeErr != nil {
		return time.Time{}, true // the next try names what is missing
	}
	return f.RetryAt(err)
}

// write checks and writes a publication, or returns why not. It sets what is known of the result.
func (p *Publisher) write(ctx context.Context, v *agented.Publication) error {
	e, err := p.o.DB.Execution(ctx, v.Execution)
	if err != nil {
		return &passing{text: "the execution could not be read", cause: err}
	}
	j := &job{p: p, v: v, e: e, policy: e.Snapshot.Publish}
	if j.policy == nil || !j.policy.Allows(v.Kind) {
		return &refused{proposal.RuleKind, fmt.Sprintf("The trigger does not allow %s.", v.Kind)}
	}
	if j.proposal, err = proposal.Decode(v.Proposal); err != nil {
		return &refused{proposal.RuleSchema, "The stored proposal is damaged."}
	}
	if j.forge, err = p.o.Forge(); err != nil {
		return &passing{text: agented.Message(err), cause: err, within: credentialPause}
	}
	switch v.Kind {
	case agented.PublishesPullRequest:
		return j.pullRequest(ctx)
	case agented.PublishesComment:
		return j.comment(ctx)
	case agented.PublishesCommitStatus:
		return j.commitStatus(ctx)
	}
	return &refused{proposal.RuleKind, fmt.Sprintf("This version does not publish %s.", v.Kind)}
}

// job is one publication that is being written.
type job struct {
	p        *Publisher
	v        *agented.Publication
	e        *agented.Execution
	policy   *agented.Publish
	proposal proposal.Proposal
	forge    Forge
}

// gate returns an error if the publication must not be written now: the pull request has newer
// commits, or a person has to approve it.
func (j *job) gate(ctx context.Context) error {
	if err := j.guard(ctx); err != nil {
		return err
	}
	if j.v.Hold && j.v.DecidedBy == "" {
		return &stopped{agented.PublicationHeld, "It waits for an approval."}
	}
	return nil
}

// guard returns an error if the pull request has newer commits than the execution.
func (j *job) guard(ctx context.Context) error {
	if t := j.e.Snapshot.PublishTo; j.v.SHA != "" && t != nil && t.PullRequest && t.Number > 0 {
		head, err := j.forge.PullHead(ctx, j.v.Repository, t.Number)
		if err != nil {
			return err
		}
		if head != j.v.SHA {
			return &stopped{agented.PublicationSuperseded, fmt.Sprintf("The head of #%d has moved from %.12s to %.12s; nothing was written.", t.Number, j.v.SHA, head)}
		}
	}
	return nil
}

// marker returns the hidden comment that identifies the publication.
func (j *job) marker() string { return agented.PublicationMarker(j.v.Execution, j.v.Number) }

// written stores what was written in the row.
func (j *job) written(w Written) {
	j.v.URL, j.v.RemoteID = w.URL, cmp.Or(w.ID, j.v.RemoteID)
}

// temp returns an empty folder, and a function that removes it.
func (j *job) temp() (string, func(), error) {
	if err := os.MkdirAll(j.p.folder(), 0o700); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp(j.p.folder(), string(j.v.Execution)+"-")
	return dir, func() {
		if err := remove.All(dir); err != nil {
			j.p.o.Log.Warn("remove the folder of a publication", "err", err)
		}
	}, err
}

// sentence converts an error to a sentence for users.
func sentence(err error) string {
	text := agented.Message(err)
	if e, ok := errors.AsType[*passing](err); ok {
		text = e.text
	} else if e, ok := errors.AsType[*github.Error](err); ok {
		text = e.Error()
	}
	text = strings.TrimSuffix(format.Clip(strings.Join(strings.Fields(text), " "), 500), ".")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
