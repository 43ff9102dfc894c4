package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
)

// maxPause bounds how long a pause may last.
const maxPause = 30 * 24 * time.Hour

// pauseFor is how long a pause lasts at most when nobody says it.
func (d *Dispatcher) pauseFor() time.Duration {
	if d.o.PauseFor > 0 {
		return d.o.PauseFor
	}
	return agented.DefaultPause
}

// Pausing asks for a pause.
type Pausing struct {
	By     agented.Principal
	Reason string
	For    time.Duration // then it is ended; 0 is the server's setting
}

// Pause lets a running execution stand still: all its processes, and its limits
// of time and silence. It is a Conflict when the execution does not run, or
// cannot be paused.
func (d *Dispatcher) Pause(ctx context.Context, id agented.ExecutionID, p Pausing) (*agented.Execution, error) {
	if p.For < 0 || p.For > maxPause {
		return nil, agented.InvalidFields([]agented.Field{{Path: "seconds", Text: fmt.Sprintf("must be from 1 to %d", int(maxPause.Seconds()))}})
	}
	if p.For == 0 {
		p.For = d.pauseFor()
	}
	e, h, err := d.held(ctx, id)
	if err != nil {
		return nil, err
	}
	if e.Pause != nil {
		return nil, agented.Errorf(agented.Conflict, "%s is paused already", id)
	}
	now := d.now()
	return d.standStill(ctx, e, h, agented.Pause{At: now, Until: now.Add(p.For), Reason: strings.TrimSpace(p.Reason), By: p.By.Name})
}

// standStill pauses an execution that runs here and writes that down. The shim
// comes first: it is what the next server asks.
func (d *Dispatcher) standStill(ctx context.Context, e *agented.Execution, h *shim.Handle, p agented.Pause) (*agented.Execution, error) {
	if err := h.Pause(shim.Standstill{Until: p.Until, By: p.By, Why: p.Reason}); err != nil {
		return nil, pauseFailed(e.ID, err)
	}
	if err := d.o.DB.Paused(context.WithoutCancel(ctx), e.ID, e.Lease, p); err != nil {
		// It has ended meanwhile, or the store does not answer: nobody would
		// know why it stands still.
		if undo := h.Continue("", "the pause could not be written down"); undo != nil && !errors.Is(undo, shim.ErrNotPaused) {
			d.o.Log.Warn("undo a pause", "execution", e.ID, "err", undo)
		}
		return nil, err
	}
	d.o.Log.Info("execution paused", "execution", e.ID, "by", p.By, "reason", p.Reason, "until", p.Until)
	if d.o.Observe.Paused != nil {
		d.o.Observe.Paused(p.Question)
	}
	return d.o.DB.Execution(ctx, e.ID)
}

func pauseFailed(id agented.ExecutionID, err error) error {
	var e *agented.Error
	if errors.As(err, &e) {
		return agented.Errorf(e.Kind, "%s cannot be paused or continued: %s", id, e.Text).Because(e.Cause)
	}
	return agented.Errorf(agented.Unavailable, "the supervisor of %s does not answer: try again", id).Because(err)
}

// Continuing asks for a paused execution to go on.
type Continuing struct {
	By      agented.Principal
	Ceiling *float64 // a new ceiling of its cost in USD; nil leaves it, 0 is none
}

// Continue lets a paused execution go on. One that asks about its ceiling needs
// a higher one, or none.
func (d *Dispatcher) Continue(ctx context.Context, id agented.ExecutionID, c Continuing) (*agented.Execution, error) {
	e, h, err := d.held(ctx, id)
	if err != nil {
		return nil, err
	}
	if e.Pause == nil {
		return nil, agented.Errorf(agented.Conflict, "%s is not paused", id)
	}
	if v := c.Ceiling; v != nil && (*v < 0 || *v > 1e6 || *v != *v) {
		return nil, agented.InvalidFields([]agented.Field{{Path: "ceiling_usd", Text: "must be from 0 (none) to 1000000"}})
	}
	if e.Pause.Question == agented.QuestionCeiling && (c.Ceiling == nil || *c.Ceiling != 0 && *c.Ceiling <= e.Pause.SpentUSD) {
		return nil, agented.InvalidFields([]agented.Field{{
			Path: "ceiling_usd", Text: fmt.Sprintf("must be above the %s that it has cost, or 0 for none: it would be paused again at once", agented.Dollars(e.Pause.SpentUSD)),
		}})
	}
	why := ""
	if c.Ceiling != nil {
		if err := d.o.DB.RaiseCeiling(ctx, id, *c.Ceiling); err != nil {
			return nil, err
		}
		why = "the ceiling of its cost is " + agented.Dollars(*c.Ceiling) + " now"
		if *c.Ceiling == 0 {
			why = "its cost has no ceiling any more"
		}
		d.setCeiling(id, *c.Ceiling)
	}
	if e.Pause.Question == agented.QuestionBudget {
		d.allowBudgets(id)
	}
	if err := h.Continue(c.By.Name, why); err != nil && !errors.Is(err, shim.ErrNotPaused) {
		return nil, pauseFailed(id, err)
	}
	if err := d.o.DB.Continued(context.WithoutCancel(ctx), id); err != nil {
		return nil, err
	}
	d.o.Log.Info("execution continued", "execution", id, "by", c.By.Name)
	return d.o.DB.Execution(ctx, id)
}

// held is an execution that runs here, with the hold on its attempt.
func (d *Dispatcher) held(ctx context.Context, id agented.ExecutionID) (*agented.Execution, *shim.Handle, error) {
	if err := d.awaitFound(ctx, id); err != nil {
		return nil, nil, err
	}
	e, err := d.o.DB.Execution(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if e.State != agented.StateRunning {
		return nil, nil, agented.Errorf(agented.Conflict, "%s is %s, not running", id, e.State)
	}
	if e.CancelAsked {
		return nil, nil, agented.Errorf(agented.Conflict, "%s is being stopped", id)
	}
	d.mu.Lock()
	var h *shim.Handle
	if w := d.running[id]; w != nil {
		h = w.handle
	}
	d.mu.Unlock()
	if h == nil {
		return nil, nil, agented.Errorf(agented.Conflict, "%s has not started its command yet: try again in a moment", id)
	}
	return e, h, nil
}

// foundPatience is how long a request waits until an execution that was taken over
// is gone on with.
const foundPatience = 5 * time.Second

// awaitFound waits while an execution that a previous server left running is not
// gone on with yet.
func (d *Dispatcher) awaitFound(ctx context.Context, id agented.ExecutionID) error {
	d.mu.Lock()
	var found chan struct{}
	if w := d.running[id]; w != nil {
		found = w.found
	}
	d.mu.Unlock()
	if found == nil {
		return nil
	}
	late := time.NewTimer(foundPatience)
	defer late.Stop()
	select {
	case <-found:
		return nil
	case <-late.C:
		return agented.Errorf(agented.Unavailable, "%s was taken over from a previous server, and its supervisor does not answer yet: try again", id)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// syncPause brings what is written down about an adopted attempt in line with
// what its shim says: a server may have died between the two.
func (d *Dispatcher) syncPause(ctx context.Context, e *agented.Execution, h *shim.Handle) {
	var err error
	p := h.WasPaused()
	switch {
	case p == nil && e.Pause != nil:
		err = d.o.DB.Continued(ctx, e.ID)
	case p != nil && e.Pause == nil:
		err = d.o.DB.Paused(ctx, e.ID, e.Lease, agented.Pause{At: p.At, Until: p.Until, Reason: p.Why, By: p.By})
	}
	if err != nil && ctx.Err() == nil {
		d.o.Log.Warn("write down a pause", "execution", e.ID, "err", err)
	}
}
