package dispatch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// ownFolder reports whether the execution works in a folder that was empty when
// its agent began, so that the agent wrote everything in it. Such files must not
// give the next turn or attempt more than its permission: a hook in the settings
// of a project would run commands for an agent that may only edit.
func (d *Dispatcher) ownFolder(e *agented.Execution) bool {
	spec := specOf(e)
	if spec.Permission == agented.PermissionFull || spec.Backend == agented.BackendCommand || e.Snapshot.TrustRepo {
		return false
	}
	dir := d.workDir(e)
	owner := filepath.Base(filepath.Dir(dir))
	return dir == d.o.Layout.Work(agented.ExecutionID(owner)) ||
		dir == filepath.Join(d.o.Layout.Conversation(agented.ConversationID(owner)), "work")
}

// diskFolders lists the folders whose files count for the limit of an attempt's disk space: those
// that belong to the execution or to its conversation. A working directory of the trigger does not.
func (d *Dispatcher) diskFolders(p *preparation) []string {
	e, l := p.e, d.o.Layout
	own := []string{l.Work(e.ID), l.Temp(e.ID), d.recordsOf(e.ID).Out(e.AttemptNo), filepath.Join(l.Execution(e.ID), "home")}
	if c := e.Cause; c != nil && c.Conversation != "" {
		own = append(own, l.Conversation(c.Conversation))
	}
	if dir := resolved(d.workDir(e)); strings.HasPrefix(dir, resolved(l.Root)+"/") && e.Snapshot.WorkingDir == "" {
		own = append(own, dir)
	}
	var out []string
	for _, dir := range own {
		dir = resolved(dir)
		if !slices.ContainsFunc(out, func(o string) bool { return dir == o || strings.HasPrefix(dir, o+"/") }) {
			out = append(out, dir)
		}
	}
	return out
}

// removeStartupFiles removes the files of an agent's own folder that its CLI
// loads before any switch takes effect, and logs their names.
func (d *Dispatcher) removeStartupFiles(e *agented.Execution, b agentcli.CLI) error {
	dir := d.workDir(e)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return agented.Errorf(agented.Unavailable, "the working directory could not be read: %v", errors.Unwrap(err)).Because(err)
	}
	var removed []string
	for _, entry := range entries {
		name := entry.Name()
		if !agentcli.StartupFile(b, name) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return agented.Errorf(agented.Unavailable, "%s could not be removed from the working directory: %v", name, errors.Unwrap(err)).Because(err)
		}
		removed = append(removed, name)
	}
	if len(removed) > 0 {
		d.systemLine(e, "Files that the CLI would load at its start were removed: "+strings.Join(removed, ", ")+".")
	}
	return nil
}
