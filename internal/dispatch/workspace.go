package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/workspace"
)

// fillWorkspace fills the placeholders of a spec's workspace.
func fillWorkspace(s agented.Spec, values map[string]string) (agented.Spec, error) {
	if s.Workspace == nil {
		return s, nil
	}
	w, err := s.Workspace.Filled(values)
	if err == nil {
		s.Workspace = &w
	}
	return s, err
}

// checkOut gives the execution its workspace before anything else is done for
// it. It reports false when with that begin is over: the end is written down,
// or the next server goes on. A long fetch is cut short by a cancellation.
func (d *Dispatcher) checkOut(ctx context.Context, e *agented.Execution, w *work) bool {
	if e.Snapshot.Workspace == nil || e.Snapshot.Resume != nil {
		return true
	}
	cut, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	w.cut = cancel
	stop := w.stop
	d.mu.Unlock()
	if stop {
		cancel()
	}
	c, err := d.makeCheckout(cut, e)
	switch {
	case err == nil:
		d.noteCheckout(ctx, e, c)
		return true
	case d.asked(w):
		d.finish(ctx, e, noStart(agented.CauseCancelled, "cancelled before it started", d.now()))
		return false
	case ctx.Err() != nil:
		return false // nothing ran yet: the next server begins it anew
	case full(err):
		d.putBack(ctx, e, err)
		return false
	}
	text := agented.Message(err)
	exit := noStart(agented.CauseNoStart, text, d.now())
	var failed *workspace.Error
	if errors.As(err, &failed) {
		exit.Detail, exit.Class = failed.Text, failed.Class
	}
	d.o.Log.Info("attempt not started", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "cause", errors.Unwrap(err))
	d.systemLine(e, exit.Detail)
	d.finish(ctx, e, exit)
	return false
}

func (d *Dispatcher) makeCheckout(ctx context.Context, e *agented.Execution) (workspace.Checkout, error) {
	if d.o.Workspaces == nil {
		return workspace.Checkout{}, agented.Errorf(agented.Invalid, "this server makes no workspaces")
	}
	token := ""
	if name := e.Snapshot.Workspace.Credential; name != "" {
		env, err := d.openEnv(e.Snapshot.Env)
		if err != nil {
			return workspace.Checkout{}, err
		}
		if value, ok := env[name]; ok && value != nil {
			token = *value
		} else if value, ok := d.o.Lookup(name); ok {
			token = value
		}
		if token == "" {
			return workspace.Checkout{}, agented.Errorf(agented.Invalid, "the workspace's credential %s is empty: give the variable the token", name)
		}
	}
	return d.o.Workspaces.Prepare(ctx, workspace.Request{
		Execution: e.ID, Workspace: *e.Snapshot.Workspace, Token: token,
		Say: func(text string) { d.systemLine(e, text) },
	})
}

// noteCheckout writes down which commit it is, for people.
func (d *Dispatcher) noteCheckout(ctx context.Context, e *agented.Execution, c workspace.Checkout) {
	err := d.o.DB.NoteCheckout(ctx, e.ID, e.Lease, agented.Checkout{Repository: c.Repository, Ref: c.Ref, Commit: c.Commit, At: c.At})
	if err != nil && ctx.Err() == nil {
		d.o.Log.Warn("note the workspace's commit", "execution", e.ID, "err", err)
	}
}

// sweepEvery is how often workspaces that are kept no longer are looked for.
const sweepEvery = 30 * time.Minute

// sweepLoop removes workspaces that are kept no longer.
func (d *Dispatcher) sweepLoop(ctx context.Context) error {
	if d.o.Workspaces == nil {
		<-ctx.Done()
		return errDraining
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		d.sweepWorkspaces(ctx)
		select {
		case <-ctx.Done():
			return errDraining
		case <-tick.C:
		}
	}
}

func (d *Dispatcher) sweepWorkspaces(ctx context.Context) {
	var resumed map[agented.ExecutionID]bool
	n, err := d.o.Workspaces.Sweep(ctx, d.o.KeepWorkspaces, func(ctx context.Context, id agented.ExecutionID) (workspace.Standing, error) {
		if resumed == nil {
			var err error
			if resumed, err = d.o.DB.GoesOnIn(ctx); err != nil {
				return workspace.Standing{}, err
			}
		}
		e, err := d.o.DB.Execution(ctx, id)
		if err != nil {
			return workspace.Standing{}, err
		}
		return workspace.Standing{Needed: !e.State.Final() || resumed[id], Ended: e.FinishedAt}, nil
	})
	if err != nil && ctx.Err() == nil {
		d.o.Log.Error("sweep workspaces", "err", err)
	}
	if n > 0 {
		d.o.Log.Info("old workspaces removed", "count", n)
	}
}
