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

// maxPause is the maximum duration of a pause.
const maxPause = 30 * 24 * time.Hour

// pauseFor returns the default maximum duration of a pause.
func (d *Dispatcher) pauseFor() time.Duration {
	if d.o.PauseFor > 0 {
		return d.o.PauseFor
	}
	return agented.DefaultPause
}

// Pausing holds the parameters of a pause.
type Pausing struct {
	By     agented.Principal
	Reason string
	For    time.Duration // maximum duration; 0 uses the server's setting
}

// Pause stops all processes of a running execution and the clocks of its timeouts. It returns
// Conflict if the execution is not running or cannot be paused.
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
		return nil, agented.Errorf(agented.Conflict, "%s is already paused", id)
	}
	now := d.now()
	return d.pauseHere(ctx, e, h, agented.Pause{At: now, Until: now.Add(p.For), Reason: strings.TrimSpace(p.Reason), By: p.By.Name})
}

// pauseHere pauses an execution of this node and records it. The shim is paused first, because
// the next server trusts the shim.
func (d *Dispatcher) pauseHere(ctx context.Context, e *agented.Execution, h *shim.Handle, p agented.Pause) (*agented.Execution, error) {
	if err := h.Pause(shim.PauseState{Until: p.Until, By: p.By, Why: p.Reason}); err != nil {
		return nil, pauseFailed(e.ID, err)
	}
	if err := d.o.DB.Paused(context.WithoutCancel(ctx), e.ID, e.Lease, p); err != nil {
		// The execution has ended meanwhile, or the store is unavailable. A pause that is not
		// recorded must be undone.
		if undo := h.Continue("", "the pause could not be recorded"); undo != nil && !errors.Is(undo, shim.ErrNotPaused) {
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
	return agented.Errorf(agented.Unavailable, "the shim of %s does not answer: try again", id).Because(err)
}

// Continuing holds the parameters for continuing a paused execution.
type Continuing struct {
	By      agented.Principal
	Ceiling *float64 // new cost ceiling in USD; nil keeps the current one, 0 removes it
}

// Continue continues a paused execution. One that was paused at its ceiling needs a higher one,
// or none.
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
			Path: "ceiling_usd", Text: fmt.Sprintf("must be above the %s already spent, or 0 for none: otherwise it would be paused again at once", agented.Dollars(e.Pause.SpentUSD)),
		}})
	}
	why := ""
	if c.Ceiling != nil {
		if err := d.o.DB.RaiseCeiling(ctx, id, *c.Ceiling); err != nil {
			return nil, err
		}
		why = "the cost ceiling is now " + agented.Dollars(*c.Ceiling)
		if *c.Ceiling == 0 {
			why = "the cost ceiling was removed"
		}
		// A question below the ceiling is about a model without a price.
		unpriced := e.Pause.Question == agented.QuestionCeiling && e.Pause.SpentUSD < e.Pause.LimitUSD
		d.o.Costs.SetCeiling(id, *c.Ceiling, unpriced)
	}
	if e.Pause.Question == agented.QuestionBudget {
		d.o.Costs.AllowBudgets(id)
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

// held returns an execution that runs on this node, with the handle of its attempt.
func (d *Dispatcher) held(ctx context.Context, id agented.ExecutionID) (*agented.Execution, *shim.Handle, error) {
	if err := d.awaitResumed(ctx, id); err != nil {
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

// resumePatience is how long a request waits until an adopted execution is resumed.
const resumePatience = 5 * time.Second

// awaitResumed waits until an execution of a previous server is resumed.
func (d *Dispatcher) awaitResumed(ctx context.Context, id agented.ExecutionID) error {
	d.mu.Lock()
	var found chan struct{}
	if w := d.running[id]; w != nil {
		found = w.found
	}
	d.mu.Unlock()
	if found == nil {
		return nil
	}
	late := time.NewTimer(resumePatience)
	defer late.Stop()
	select {
	case <-found:
		return nil
	case <-late.C:
		return agented.Errorf(agented.Unavailable, "%s was adopted from a previous server, and its shim does not answer yet: try again", id)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// syncPause updates the recorded pause of an adopted attempt to the state of its shim, because a
// server may have crashed between the two.
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
		d.o.Log.Warn("record a pause", "execution", e.ID, "err", err)
	}
}
