package dispatch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/sandbox"
	"github.com/agented/agented/internal/shim"
)

// level returns the sandbox level of an execution's next attempt.
func (d *Dispatcher) level(e *agented.Execution) agented.Sandbox {
	if e.Snapshot.Sandbox != "" {
		return e.Snapshot.Sandbox
	}
	if d.o.Sandbox != nil {
		if level := d.o.Sandbox(); level != "" {
			return level
		}
	}
	return agented.SandboxOff
}

// ranAt returns the level that an ended attempt ran at. It is empty if the attempt did not start.
func (d *Dispatcher) ranAt(e *agented.Execution, exit agented.Exit) agented.Sandbox {
	if exit.Cause == agented.CauseNoStart {
		return ""
	}
	if a := current(e); a != nil && a.Sandbox != "" {
		return a.Sandbox
	}
	return d.levelOfBundle(e)
}

// levelOfBundle returns the level of an attempt that an earlier server started. It is empty if the
// attempt has no bundle.
func (d *Dispatcher) levelOfBundle(e *agented.Execution) agented.Sandbox {
	spec, err := shim.ReadSpec(d.o.Layout.Attempt(e.ID, e.AttemptNo))
	switch {
	case err != nil:
		return ""
	case spec.Sandbox == nil:
		return agented.SandboxOff
	}
	return spec.Sandbox.Level
}

// box returns the sandbox of an attempt, or nil if its level is off. vars is the environment of the
// attempt. Its errors are messages for users.
func (d *Dispatcher) box(e *agented.Execution, b agentcli.CLI, vars map[string]string) (*shim.Box, error) {
	level := d.level(e)
	if level == agented.SandboxOff {
		return nil, nil
	}
	if level != agented.SandboxGuard {
		return nil, agented.Errorf(agented.Invalid, "the sandbox level %s %s", level, level.Problem())
	}
	r := sandbox.Request{Home: vars["HOME"], Root: os.Geteuid() == 0, UID: os.Getuid()}
	if d.o.Hidden != nil {
		r.Secret, r.Runtime = d.o.Hidden()
	}
	if path, ok := d.o.Lookup("PATH"); ok {
		r.Path = path
	}
	r.Secret = append(r.Secret, d.o.Layout.Root)
	own, err := d.ownFolders(e, b, vars)
	if err != nil {
		return nil, err
	}
	r.Own, r.Agent = own, d.outside(vars["SSH_AUTH_SOCK"])
	facts, err := sandbox.Resolve(r)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "%s", err.Error())
	}
	for name, path := range map[string]string{"working directory": d.workDir(e), "home folder": vars["HOME"]} {
		if dir := facts.Hidden(path); dir != "" && path != "" {
			return nil, agented.Errorf(agented.Invalid,
				"the %s %s is in %s, which sandbox guard hides because it contains data of the server: use another folder, or set sandbox to off", name, path, dir)
		}
	}
	return &shim.Box{Level: level, Command: facts.Command()}, nil
}

// ownFolders lists what an attempt uses. The folders of its environment and its trigger count
// unless they are inside the server's own folders.
func (d *Dispatcher) ownFolders(e *agented.Execution, b agentcli.CLI, vars map[string]string) ([]sandbox.Folder, error) {
	l := d.o.Layout
	var out []sandbox.Folder
	use := func(paths ...string) {
		for _, path := range paths {
			if path != "" {
				out = append(out, sandbox.Folder{Path: path})
			}
		}
	}
	read := func(path string) { out = append(out, sandbox.Folder{Path: path, ReadOnly: true}) }

	use(l.Work(e.ID), l.Temp(e.ID), d.recordsOf(e.ID).Out(e.AttemptNo))
	if b.Program() == "" && b.Name() != agented.BackendCommand {
		// A built-in backend stores sessions; outside of conversations in the execution's folder.
		state := d.stateOf(e)
		if err := os.MkdirAll(state, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the folder for sessions could not be created: %v", errors.Unwrap(err)).Because(err)
		}
		use(state)
	}
	if c := e.Cause; c != nil && c.Conversation != "" {
		use(l.Conversation(c.Conversation))
	}
	if r := e.Snapshot.Resume; r != nil {
		use(r.Dir) // set by the server only
	}
	dir := d.workDir(e)
	if owner := agented.ExecutionID(filepath.Base(filepath.Dir(dir))); owner != "" && l.Work(owner) == dir && d.o.Workspaces != nil {
		if c, ok := d.o.Workspaces.Existing(owner); ok && c.Mirror == filepath.Base(c.Mirror) {
			// git reads the objects of the mirror.
			read(filepath.Join(l.Root, "workspaces", c.Mirror, "mirror.git"))
		}
	}
	read(l.Bin())
	if self, err := os.Executable(); err == nil && strings.HasPrefix(self, l.Root+"/") {
		read(self) // the command for messages, and the built-in backend
	}
	use(d.outside(e.Snapshot.WorkingDir))
	for _, path := range e.Snapshot.Paths {
		use(d.outside(path))
	}
	for _, name := range homeVariables() {
		use(d.outside(vars[name]))
	}
	return out, nil
}

// homeVariables are the names of variables with folders that agents and their tools write to.
func homeVariables() []string {
	names := []string{"HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"}
	for _, backend := range agented.Backends {
		if name := agented.ConfigVariable(backend); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// outside returns the path, or "" if it is the data folder or inside of the folders that the server
// keeps there. Other folders in the data folder belong to users.
func (d *Dispatcher) outside(path string) string {
	root := d.o.Layout.Root
	for _, p := range []string{path, resolved(path)} {
		for _, r := range []string{root, resolved(root)} {
			rest, inside := strings.CutPrefix(filepath.Clean(p)+"/", r+"/")
			first, _, _ := strings.Cut(rest, "/")
			if inside && (first == "" || slices.Contains(serverFolders, first) || !isFolder(p)) {
				return ""
			}
		}
	}
	return path
}

// serverFolders are the names of folders in the data folder that the server writes.
var serverFolders = []string{"executions", "conversations", "workspaces", "bin"}

// resolved returns the path without symbolic links if it exists.
func resolved(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
