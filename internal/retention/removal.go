package retention

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// removeStep is the number of folders removed between two database writes.
const removeStep = 50

// removeFolders removes the folders that are recorded for removal, including those of an earlier
// crash or failure. A folder that fails is recorded again; the others are still removed.
func (p *Pruner) removeFolders(ctx context.Context) (n int64, err error) {
	for after := ""; ; {
		list, err := p.o.DB.Removals(ctx, after, removeStep)
		if err != nil || len(list) == 0 {
			failed, countErr := p.o.DB.FailedRemovals(ctx, 0)
			if err == nil && countErr == nil {
				p.failedRemovals.Store(failed.Folders)
			}
			return n, err
		}
		after = list[len(list)-1].ID
		gone, err := p.removeStep(ctx, list)
		if err != nil {
			return n, err
		}
		n += gone
	}
}

// removeStep removes some folders. It returns errors of the database, or Conflict during a
// backup.
func (p *Pruner) removeStep(ctx context.Context, list []store.Removal) (int64, error) {
	if p.o.Hold != nil {
		held, err := p.o.Hold()
		if err != nil {
			return 0, err
		}
		defer held.Close()
	}
	var gone []string
	for _, r := range list {
		dir, err := p.removalFolder(r.ID)
		if err == nil {
			err = remove.All(dir)
		}
		if err == nil {
			gone = append(gone, r.ID)
			continue
		}
		if r.Attempts == 0 {
			p.o.Log.Error("a folder could not be removed; the removal is retried every hour", "id", r.ID, "err", err)
		}
		bytes := r.Bytes
		if dir != "" {
			bytes = FolderBytes(dir)
		}
		if err := p.o.DB.RemovalFailed(ctx, r.ID, bytes, err.Error(), p.now()); err != nil {
			return 0, err
		}
	}
	return int64(len(gone)), p.o.DB.Removed(ctx, gone)
}

// removalFolder returns the folder of an execution or a conversation that may be removed.
func (p *Pruner) removalFolder(id string) (string, error) {
	switch {
	case agented.ValidID("exec", id):
		dir := p.o.Layout.Execution(agented.ExecutionID(id))
		return dir, p.unused(dir)
	case agented.ValidID("conv", id):
		return p.o.Layout.Conversation(agented.ConversationID(id)), nil
	}
	return "", fmt.Errorf("%q is neither an execution nor a conversation", id)
}

// unused verifies that no shim runs in the folder, as a second check after the database's.
func (p *Pruner) unused(dir string) error {
	bundles, err := filepath.Glob(filepath.Join(dir, "attempt-*"))
	for _, b := range bundles {
		facts, err := shim.Inspect(b)
		if err != nil {
			return err
		}
		if shim.Decide(facts) == shim.Running { // a shim that wrote its exit record may hold the lock a moment longer
			return fmt.Errorf("%s is in use although its execution has ended", b)
		}
	}
	return err
}

// FailedRemovalCount returns the number of folders that could not be removed at the last try.
func (p *Pruner) FailedRemovalCount() int64 { return p.failedRemovals.Load() }

// FailedRemovals returns the number of folders that could not be removed, and the first limit of
// them. Paths in its errors are relative to the data folder.
func (p *Pruner) FailedRemovals(ctx context.Context, limit int) (store.FailedRemovals, error) {
	out, err := p.o.DB.FailedRemovals(ctx, limit)
	for i := range out.Items {
		out.Items[i].Error = strings.ReplaceAll(out.Items[i].Error, p.o.Layout.Root+string(filepath.Separator), "")
	}
	return out, err
}
