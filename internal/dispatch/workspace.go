package dispatch

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/workspace"
)

// fillWorkspace fills the placeholders of a spec's workspace.
func fillWorkspace(s agented.Spec, values map[string]string) (agented.Spec, error) {
	if s.Workspace == nil {
		return s, nil
	}
	w, err := s.Workspace.Expand(values)
	if err == nil {
		s.Workspace = &w
	}
	return s, err
}

// checkOut creates the workspace of an execution before anything else is done. If it returns
// false, the start is over: either an end was recorded, or the next server continues. A
// cancellation interrupts a long fetch.
func (d *Dispatcher) checkOut(ctx context.Context, e *agented.Execution, w *work, received map[string]string) bool {
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
	c, err := d.makeCheckout(cut, e, received)
	switch {
	case err == nil:
		d.noteCheckout(ctx, e, c)
		return true
	case d.asked(w):
		d.finish(ctx, e, noStart(agented.CauseCancelled, "cancelled before it started", d.now()))
		return false
	case ctx.Err() != nil:
		return false // nothing ran yet: the next server starts it again
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

func (d *Dispatcher) makeCheckout(ctx context.Context, e *agented.Execution, received map[string]string) (workspace.Checkout, error) {
	if d.o.Workspaces == nil {
		return workspace.Checkout{}, agented.Errorf(agented.Invalid, "workspaces are disabled on this server")
	}
	token, err := d.workspaceToken(e, received)
	if err != nil {
		return workspace.Checkout{}, err
	}
	return d.o.Workspaces.Prepare(ctx, workspace.Request{
		Execution: e.ID, Workspace: *e.Snapshot.Workspace, Token: token, Trusted: e.Snapshot.TrustRepo,
		Say: func(text string) { d.systemLine(e, text) },
	})
}

// workspaceToken returns the token with which the workspace is fetched; empty means none.
func (d *Dispatcher) workspaceToken(e *agented.Execution, received map[string]string) (string, error) {
	name := string(e.Snapshot.Workspace.Credential)
	if name == "" {
		return "", nil
	}
	if secret, ref := agented.RefersTo(name); ref {
		if token, ok := received[secret]; ok {
			return token, nil
		}
		return "", missingSecret(secret)
	}
	env, err := d.openEnv(e.Snapshot.Env, received)
	if err != nil {
		return "", err
	}
	token := ""
	if value, ok := env[name]; ok && value != nil {
		token = *value
	} else if value, ok := d.o.Lookup(name); ok {
		token = value
	}
	if token == "" {
		return "", agented.Errorf(agented.Invalid, "the workspace's credential %s is empty: set the variable to the token", name)
	}
	return token, nil
}

// foreign reports whether the execution works in a checkout of an untrusted repository, and
// returns the execution that the checkout was created for: turns of a conversation share the
// first one's.
func (d *Dispatcher) foreign(e *agented.Execution) (agented.ExecutionID, bool) {
	if d.o.Workspaces == nil || e.Snapshot.TrustRepo {
		return "", false
	}
	dir := d.workDir(e)
	owner := agented.ExecutionID(filepath.Base(filepath.Dir(dir)))
	if owner == "" || d.o.Layout.Work(owner) != dir {
		return "", false
	}
	_, ok := d.o.Workspaces.Existing(owner)
	return owner, ok
}

// resetAgentFiles restores the files from which an agent CLI reads instructions and settings,
// which outside contributors or earlier attempts may have changed.
func (d *Dispatcher) resetAgentFiles(e *agented.Execution, owner agented.ExecutionID) error {
	spec := specOf(e)
	shell := spec.Backend == agented.BackendCommand || spec.Permission == agented.PermissionFull
	changed, err := d.o.Workspaces.Restore(owner, !shell)
	if err != nil {
		return agented.Errorf(agented.Unavailable, "%s", err.Error()).Because(err)
	}
	if len(changed) > 0 {
		d.systemLine(e, "Agent files were reset to those of the default branch: "+workspace.Names(changed)+". With trust_repository they stay unchanged.")
	}
	return nil
}

// noteCheckout records the commit of the checkout for display.
func (d *Dispatcher) noteCheckout(ctx context.Context, e *agented.Execution, c workspace.Checkout) {
	err := d.o.DB.NoteCheckout(ctx, e.ID, e.Lease, agented.Checkout{Repository: c.Repository, Ref: c.Ref, Commit: c.Commit, At: c.At})
	if err != nil && ctx.Err() == nil {
		d.o.Log.Warn("record the workspace's commit", "execution", e.ID, "err", err)
	}
}

// sweepEvery is the interval at which expired workspaces are removed.
const sweepEvery = 30 * time.Minute

// sweepLoop removes expired workspaces.
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
			if resumed, err = d.o.DB.ResumesIn(ctx); err != nil {
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
		d.o.Log.Error("remove old workspaces", "err", err)
	}
	if n > 0 {
		d.o.Log.Info("old workspaces removed", "count", n)
	}
}
