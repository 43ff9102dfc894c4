package shim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// PauseState describes the pause of an attempt.
type PauseState struct {
	At    time.Time `json:"at"`
	Until time.Time `json:"until"` // end of the pause, when the attempt is stopped
	By    string    `json:"by,omitempty"`
	Why   string    `json:"why,omitempty"` // reason, one sentence
}

// ErrNotPaused is returned by Continue if the attempt is not paused.
var ErrNotPaused = agented.Errorf(agented.Conflict, "it is not paused")

const (
	freezePatience = 2 * time.Second // maximum time to stop all processes
	notPaused      = "not paused"    // on the socket
	isEnding       = "it is ending"
)

// Pause stops all processes of the attempt until Continue, or until the time at which the attempt
// is stopped. If it is already paused, reason and time are replaced. A shim of a version without
// pauses is a Conflict.
func (h *Handle) Pause(s PauseState) error {
	_, err := h.request(request{Verb: "pause", Until: s.Until, By: s.By, Why: s.Why}, dialPatience)
	return pauseError(err)
}

// Continue resumes a paused attempt. by is the caller, for the log.
func (h *Handle) Continue(by, why string) error {
	_, err := h.request(request{Verb: "resume", By: by, Why: why}, dialPatience)
	return pauseError(err)
}

func pauseError(err error) error {
	if err == nil {
		return nil
	}
	switch text := err.Error(); {
	case strings.Contains(text, "not supported") || strings.Contains(text, "unknown verb"):
		return agented.Errorf(agented.Conflict, "it was started by an older version of Agented, which cannot pause: wait until it ends, or cancel it").Because(err)
	case strings.Contains(text, notPaused):
		return ErrNotPaused
	case strings.Contains(text, isEnding):
		return agented.Errorf(agented.Conflict, "it is just ending").Because(err)
	}
	return fmt.Errorf("pause attempt: %w", err)
}

// pausing is a request of the control socket to the supervisor.
type pausing struct {
	on   bool
	ask  PauseState
	done chan error
}

// pause passes a request to the supervisor and waits for the result.
func (c *control) pause(r request) error {
	c.mu.Lock()
	child := c.child
	c.mu.Unlock()
	if child == 0 {
		return errors.New("it is not running yet")
	}
	p := pausing{on: r.Verb == "pause", ask: PauseState{Until: r.Until, By: r.By, Why: r.Why}, done: make(chan error, 1)}
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

// setPause executes a request.
func (k *supervisor) setPause(p pausing) {
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
		took := k.resume()
		k.logf("Continued%s after %s%s.", byWhom(p.ask.By), took.Round(time.Second), clause(p.ask.Why))
		return nil
	}()
}

func (k *supervisor) standStill(ask PauseState, was *PauseState) error {
	if was != nil {
		ask.At = was.At
		k.paused.Store(&ask)
		return nil
	}
	if left := k.tree.freeze(freezePatience); len(left) > 0 {
		if len(left) == len(k.tree.members()) {
			k.tree.thaw()
			return errors.New("some processes could not be stopped: " + strings.Join(names(left, k.mask), "; "))
		}
		k.logf("Could not be paused: %s.", strings.Join(names(left, k.mask), "; "))
	}
	now := time.Now()
	k.stillAt = now
	ask.At = now.UTC().Round(0)
	k.paused.Store(&ask)
	k.logf("Paused%s%s. It is stopped at %s unless it is continued before.", byWhom(ask.By), clause(ask.Why), ask.Until.UTC().Format("2006-01-02 15:04:05 UTC"))
	return nil
}

// resume resumes the tree and returns how long it was paused. That time does not count towards any
// timeout.
func (k *supervisor) resume() time.Duration {
	k.tree.thaw()
	took := time.Since(k.stillAt)
	k.idle += took
	k.output = k.output.Add(took)
	k.paused.Store(nil)
	return took
}

// pauseExpired stops an attempt whose pause has reached its maximum time.
func (k *supervisor) pauseExpired(now time.Time) {
	p := k.paused.Load()
	if p == nil || k.asked || now.Round(0).Before(p.Until) {
		return
	}
	stood := now.Sub(k.stillAt).Round(time.Second)
	k.end(agented.CauseTimeout, fmt.Sprintf("it was paused for %s, the maximum%s", stood, clause(p.Why)))
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

// freeze stops all processes of the tree and returns those that it could not stop. Processes that
// were already stopped are not resumed later.
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
		// Repeat, because a process may fork between the scan and the signal. Nothing can fork
		// once two scans have found all processes stopped.
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

// stopAll signals all processes that are not stopped and returns them.
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

// keepFrozen stops processes again that something has resumed.
func (t *tree) keepFrozen() {
	t.mu.Lock()
	signals := t.frozen && !t.byGroup
	t.mu.Unlock()
	if signals {
		t.stopAll()
	}
}

// thaw resumes all processes of the tree that freeze stopped.
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
	for i := len(all) - 1; i >= 0; i-- { // children first, because a parent may wait for them
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
