package dispatch

import (
	"context"
	"path/filepath"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
)

// recordsOf returns the folders with the changes and the artifacts of an execution.
func (d *Dispatcher) recordsOf(id agented.ExecutionID) changes.Folders {
	return changes.Folders{Execution: d.o.Layout.Execution(id)}
}

// comparedFolder returns the folder whose repository is compared: a checkout, or the working_dir of
// a trigger. own is set if only this execution works in it.
func (d *Dispatcher) comparedFolder(e *agented.Execution) (dir string, own, ok bool) {
	dir = d.workDir(e)
	if e.Snapshot.WorkingDir != "" {
		return dir, false, true
	}
	owner := agented.ExecutionID(filepath.Base(filepath.Dir(dir)))
	if d.o.Workspaces == nil || owner == "" || d.o.Layout.Work(owner) != dir {
		return dir, false, false
	}
	_, ok = d.o.Workspaces.Existing(owner)
	return dir, owner == e.ID, ok
}

// gitProgram returns how to run git.
func (d *Dispatcher) gitProgram() changes.Git {
	path, _ := d.o.Lookup("PATH")
	return changes.Git{Path: path}
}

// noteTree stores the state of the repository before an attempt starts. In a checkout of its own,
// the state before the first attempt is kept, so that the changes of an execution are complete
// after each attempt; the same if the attempt repairs the outcome of an earlier one. A failure does not stop the attempt.
func (d *Dispatcher) noteTree(ctx context.Context, e *agented.Execution, w *work) {
	dir, own, ok := d.comparedFolder(e)
	if !ok {
		return
	}
	cut, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	w.cut = cancel
	stop := w.stop
	d.mu.Unlock()
	if stop {
		return
	}
	_, err := changes.Take(cut, d.recordsOf(e.ID), dir, d.gitProgram(), changes.Limits{}, own && e.AttemptNo > 1 || toRepair(e) != nil)
	if err != nil && cut.Err() == nil {
		d.o.Log.Warn("record the state of the repository", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
	}
}

// recordChanges records what an ended attempt changed, once, and sets the counts of a. It returns an
// error only if ctx has ended.
func (d *Dispatcher) recordChanges(ctx context.Context, e *agented.Execution, exit agented.Exit, a *agented.Attempt) error {
	if exit.Cause == agented.CauseNoStart || exit.Cause == agented.CauseCancelled && exit.Code == nil && exit.Signal == "" {
		return nil // nothing ran
	}
	req := changes.Request{
		Folders: d.recordsOf(e.ID), Attempt: e.AttemptNo, Git: d.gitProgram(),
		Full: e.Snapshot.Publish.Allows(agented.PublishesPullRequest) && a.State == agented.StateSuccess,
	}
	mask, err := d.masker(ctx, e)
	if err == nil {
		req.Mask = mask
		var r *changes.Record
		if r, err = changes.Make(ctx, req); r != nil {
			c := r.Summary(e.AttemptNo)
			a.Changes = &c
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		d.o.Log.Error("record the changes", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
		a.Changes = &agented.Changes{Attempt: e.AttemptNo, Truncated: true, Reason: "The changes could not be stored; see the server's log."}
	}
	return nil
}
