package shim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// Standstill says that an attempt is paused.
type Standstill struct {
	At    time.Time `json:"at"`
	Until time.Time `json:"until"` // then the attempt is ended
	By    string    `json:"by,omitempty"`
	Why   string    `json:"why,omitempty"` // one sentence
}

// ErrNotPaused says that there is nothing to continue.
var ErrNotPaused = agented.Errorf(agented.Conflict, "it is not paused")

const (
	freezePatience = 2 * time.Second // for a tree to stand still
	notPaused      = "not paused"    // on the socket
	isEnding       = "it is ending"
)

// Pause lets all that the attempt has started stand still until Continue, or
// until a time at which it is ended. One that is paused already takes the new
// reason and time. A shim of a version that knows no pause is a Conflict.
func (h *Handle) Pause(s Standstill) error {
	_, err := h.ask(request{Verb: "pause", Until: s.Until, By: s.By, Why: s.Why}, dialPatience)
	return pauseError(err)
}

// Continue lets a paused attempt go on. by is who asks, for the log.
func (h *Handle) Continue(by, why string) error {
	_, err := h.ask(request{Verb: "resume", By: by, Why: why}, dialPatience)
	return pauseError(err)
}

func pauseError(err error) error {
	if err == nil {
		return nil
	}
	switch text := err.Error(); {
	case strings.Contains(text, "not supported") || strings.Contains(text, "unknown verb"):
		return agented.Errorf(agented.Conflict, "it was started by an older version of Agented, which cannot pause: wait for its end, or cancel it").Because(err)
	case strings.Contains(text, notPaused):
		return ErrNotPaused
	case strings.Contains(text, isEnding):
		return agented.Errorf(agented.Conflict, "it is ending just now").Because(err)
	}
	return fmt.Errorf("pause attempt: %w", err)
}

// pausing is what the control socket asks of the keeper.
type pausing struct {
	on   bool
	ask  Standstill
	done chan error
}

// pause hands a request to the keeper and waits for it.
func (c *control) pause(r request) error {
	c.mu.Lock()
	child := c.child
	c.mu.Unlock()
	if child == 0 {
		return errors.New("it is not running yet")
	}
	p := pausing{on: r.Verb == "pause", ask: Standstill{Until: r.Until, By: r.By, Why: r.Why}, done: make(chan error, 1)}
	late := time.NewTimer(2 * freezePatience)
	defer late.Stop()
	select {
	case c.s.k.pauses <- p:
	case <-late.C:
		return errors.New("it did not answer in time")
	}
	select {
	case err := <-p.done:
		return err
	case <-late.C:
		return errors.New("it did not answer in time")
	}
}

// setPause does what was asked for.
func (k *keeper) setPause(p pausing) {
	p.done <- func() error {
		was := k.paused.Load()
		switch {
		case k.asked || !k.leftAt.IsZero():
			return errors.New(isEnding)
		case p.on:
			return k.standStill(p.ask, was)
		case was == nil:
			return errors.New(notPaused)
		}
		took := k.goOn()
		k.say("Continued%s after %s%s.", byWhom(p.ask.By), took.Round(time.Second), clause(p.ask.Why))
		return nil
	}()
}

func (k *keeper) standStill(ask Standstill, was *Standstill) error {
	if was != nil {
		ask.At = was.At
		k.paused.Store(&ask)
		return nil
	}
	if left := k.tree.freeze(freezePatience); len(left) > 0 {
		if len(left) == len(k.tree.members()) {
			k.tree.thaw()
			return errors.New("its processes do not stand still: " + strings.Join(names(left, k.mask), "; "))
		}
		k.say("Could not be paused: %s.", strings.Join(names(left, k.mask), "; "))
	}
	now := time.Now()
	k.stillAt = now
	ask.At = now.UTC().Round(0)
	k.paused.Store(&ask)
	k.say("Paused%s%s. It is ended at %s unless it is continued before.", byWhom(ask.By), clause(ask.Why), ask.Until.UTC().Format("2006-01-02 15:04:05 UTC"))
	return nil
}

// goOn lets the tree go on and returns how long it stood. That time counts for
// no limit.
func (k *keeper) goOn() time.Duration {
	k.tree.thaw()
	took := time.Since(k.stillAt)
	k.idle += took
	k.output = k.output.Add(took)
	k.paused.Store(nil)
	return took
}

// stillTooLong ends an attempt whose pause is over its time.
func (k *keeper) stillTooLong(now time.Time) {
	p := k.paused.Load()
	if p == nil || k.asked || now.Round(0).Before(p.Until) {
		return
	}
	stood := now.Sub(k.stillAt).Round(time.Second)
	k.end(agented.CauseTimeout, fmt.Sprintf("it was paused for %s, as long as it may be%s", stood, clause(p.Why)))
}

func byWhom(who string) string {
	if who == "" {
		return ""
	}
	return " by " + readable(who, 100)
}

func clause(why string) string {
	if why == "" {
		return ""
	}
	return ": " + strings.TrimRight(readable(why, 500), ".")
}

// freeze stops all of the tree and returns those that it could not stop. What
// stood still before is not woken later.
func (t *tree) freeze(patience time.Duration) []process {
	if t.group.freeze(true, patience) {
		t.setFrozen(true, nil)
		return nil
	}
	asleep := map[int]uint64{}
	for _, p := range t.members() {
		if p.stopped {
			asleep[p.pid] = p.start
		}
	}
	t.setFrozen(true, asleep)
	calm := 0
	pause := time.Millisecond
	for deadline := time.Now().Add(patience); ; pause = min(2*pause, 20*time.Millisecond) {
		// Again and again: what was forked between a look and the signal is
		// found the next time. Nothing forks once two looks found all stopped.
		left := t.stopAll()
		if len(left) == 0 {
			if calm++; calm == 2 {
				return nil
			}
			continue
		}
		calm = 0
		if time.Now().After(deadline) {
			return left
		}
		time.Sleep(pause)
	}
}

// stopAll sends a signal to all that do not stand still and returns them.
func (t *tree) stopAll() []process {
	var left []process
	for _, p := range t.members() { // parents first
		if !p.stopped {
			_ = p.signal(unix.SIGSTOP)
			left = append(left, p)
		}
	}
	return left
}

// keepFrozen stops what somebody has woken.
func (t *tree) keepFrozen() {
	t.mu.Lock()
	signals := t.frozen && !t.byGroup
	t.mu.Unlock()
	if signals {
		t.stopAll()
	}
}

// thaw lets all of the tree go on that freeze stopped.
func (t *tree) thaw() {
	t.mu.Lock()
	frozen, byGroup, asleep := t.frozen, t.byGroup, t.asleep
	t.frozen, t.asleep = false, nil
	t.mu.Unlock()
	switch {
	case !frozen:
		return
	case byGroup:
		t.group.freeze(false, 0)
		return
	}
	all := t.members()
	for i := len(all) - 1; i >= 0; i-- { // children first: a parent may ask how they are
		p := all[i]
		if start, was := asleep[p.pid]; !was || start != p.start {
			_ = p.signal(unix.SIGCONT)
		}
	}
}

func (t *tree) setFrozen(frozen bool, asleep map[int]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frozen, t.byGroup, t.asleep = frozen, asleep == nil, asleep
}
