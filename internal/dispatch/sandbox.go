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
func (d *Dispatcher) level(e *agented.Execution) agented.Isolation {
	if s := e.Snapshot; s.Sandbox != "" {
		by := "set for this execution"
		switch {
		case s.Agent != "" && e.Trigger != "":
			by = "set in the trigger or in its agent"
		case s.Agent != "":
			by = "set in the agent"
		case e.Trigger != "":
			by = "set in the trigger"
		}
		return agented.Isolation{Level: s.Sandbox, Reason: by}
	}
	if d.o.Sandbox != nil {
		if box := d.o.Sandbox(); box.Level != "" {
			return box
		}
	}
	return agented.Isolation{Level: agented.SandboxOff}
}

// ranAt returns the level that an ended attempt ran at. It is empty if the attempt did not start.
func (d *Dispatcher) ranAt(e *agented.Execution, exit agented.Exit) agented.Isolation {
	if exit.Cause == agented.CauseNoStart {
		return agented.Isolation{}
	}
	if a := current(e); a != nil && a.Sandbox.Level != "" {
		return a.Sandbox
	}
	return d.levelOfBundle(e)
}

// levelOfBundle returns the level of an attempt that an earlier server started. It is empty if the
// attempt has no bundle.
func (d *Dispatcher) levelOfBundle(e *agented.Execution) agented.Isolation {
	spec, err := shim.ReadSpec(d.o.Layout.Attempt(e.ID, e.AttemptNo))
	switch {
	case err != nil:
		return agented.Isolation{}
	case spec.Sandbox == nil:
		return agented.Isolation{Level: agented.SandboxOff, Reason: spec.SandboxReason}
	}
	return agented.Isolation{Level: spec.Sandbox.Level, Reason: spec.SandboxReason}
}

// box returns the sandbox of an attempt, or nil if its level is off. path is the attempt's program.
// Its errors are messages for users.
func (d *Dispatcher) box(p *preparation, path string) (*shim.Box, error) {
	e, b, vars, level := p.e, p.cli, p.vars, p.level.Level
	if level == agented.SandboxOff {
		return nil, nil
	}
	if text := level.Problem(); text != "" {
		return nil, agented.Errorf(agented.Invalid, "the sandbox level %s %s", level, text)
	}
	r := sandbox.Request{Level: level, Home: vars["HOME"], Root: os.Geteuid() == 0, UID: os.Getuid()}
	if d.o.Hidden != nil {
		r.Secret, r.Runtime = d.o.Hidden()
	}
	if path, ok := d.o.Lookup("PATH"); ok {
		r.Path = path
	}
	r.Secret = append(r.Secret, d.o.Layout.Root)
	own, err := d.ownFolders(e, b)
	if err != nil {
		return nil, err
	}
	r.Own = own
	var forward *shim.Forward
	port := 0
	if level == agented.SandboxStrict {
		if p.broker != nil {
			port = d.brokerPort()
		}
		forward, err = d.strict(e, b, vars, path, &r, p.broker.Reaches())
	} else {
		d.guard(vars, &r)
	}
	if err != nil {
		return nil, err
	}
	facts, err := sandbox.Resolve(r)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "%s", err.Error())
	}
	used := map[string]string{"working directory": d.workDir(e)}
	if level == agented.SandboxGuard {
		used["home folder"] = vars["HOME"]
	}
	if forward != nil {
		used["socket of AGENTED_SANDBOX_FORWARD"] = forward.Socket
	}
	for name, path := range used {
		if dir := facts.Hidden(path); dir != "" && path != "" {
			return nil, agented.Errorf(agented.Invalid,
				"the %s %s is in %s, which sandbox %s hides because it contains data of the server or of its user: use another folder, or set sandbox to off", name, path, dir, level)
		}
	}
	return &shim.Box{Level: level, Command: facts.Command(), Forward: forward, BrokerPort: port}, nil
}

// guard adds what an attempt uses at that level: the folders of its environment, unless they are
// inside the server's own folders.
func (d *Dispatcher) guard(vars map[string]string, r *sandbox.Request) {
	for _, name := range homeVariables() {
		if path := d.outside(vars[name]); path != "" {
			r.Own = append(r.Own, sandbox.Folder{Path: path})
		}
	}
	r.Agent = d.outside(vars["SSH_AUTH_SOCK"])
}

// strict adds what an attempt uses at that level: a home and temporary folder of the execution, the
// login of its CLI, the programs on its PATH, and a port for the API of its model unless a broker has
// one.
func (d *Dispatcher) strict(e *agented.Execution, b agentcli.CLI, vars map[string]string, path string, r *sandbox.Request, brokered bool) (*shim.Forward, error) {
	var forward *shim.Forward
	if d.o.Forward != nil {
		if port, socket := d.o.Forward(); port > 0 {
			forward = &shim.Forward{Port: port, Socket: socket}
			r.Own = append(r.Own, sandbox.Folder{Path: filepath.Dir(socket), ReadOnly: true})
		}
	}
	if forward == nil && !brokered && b.Name() != agented.BackendCommand {
		return nil, agented.Errorf(agented.Invalid,
			"sandbox strict has no network, so %s cannot reach the API of its model, and the execution does not run without the sandbox: set AGENTED_BROKER to on, set AGENTED_SANDBOX_FORWARD to a port and the socket of a proxy, or use sandbox guard", b.Name())
	}
	home := filepath.Join(d.o.Layout.Execution(e.ID), "home")
	if c := e.Cause; c != nil && c.Conversation != "" {
		home = filepath.Join(d.o.Layout.Conversation(c.Conversation), "home")
	}
	for _, dir := range []string{home, d.o.Layout.Temp(e.ID)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the home folder of the execution could not be created: %v", errors.Unwrap(err)).Because(err)
		}
	}
	r.HomeFrom, r.TempFrom = home, d.o.Layout.Temp(e.ID)
	r.Own = append(r.Own, sandbox.Folder{Path: home})
	if server, ok := d.o.Lookup("HOME"); ok && resolved(server) != resolved(r.Home) {
		r.Homes = append(r.Homes, server)
	}
	if !isFolder(r.Home) || resolved(r.Home) == "/" {
		vars["HOME"], r.Home = home, home
		r.HomeFrom = ""
	}
	r.Own = append(r.Own, d.logins(e, b, vars)...)
	for _, dir := range append(filepath.SplitList(vars["PATH"]), programFolders(path)...) {
		if filepath.IsAbs(dir) && d.outside(dir) != "" {
			r.Programs = append(r.Programs, dir)
		}
	}
	return forward, nil
}

// programFolders returns the folders that a program needs besides the system's: its own, and that of
// the npm packages that it belongs to.
func programFolders(path string) []string {
	real := resolved(path)
	if before, _, found := strings.Cut(real, "/node_modules/"); found {
		return []string{filepath.Dir(path), before + "/node_modules"}
	}
	return []string{filepath.Dir(path), filepath.Dir(real)}
}

// loginFolder is where a CLI keeps its login and settings, relative to HOME.
type loginFolder struct {
	path     string
	settings bool // only settings, read-only; the CLI needs them also if it has another login
}

// loginFolders lists the folders by backend. They are mounted as folders, because CLIs replace the
// file of a login when they refresh it.
var loginFolders = map[string][]loginFolder{
	agented.BackendClaude: {{path: ".claude"}},
	agented.BackendCodex:  {{path: ".codex"}},
	agented.BackendGemini: {{path: ".gemini"}, {path: ".gemini/settings.json", settings: true}},
	agented.BackendOpenCode: {
		{path: ".local/share/opencode"},
		// It writes other files into that folder at every start.
		{path: ".config/opencode/opencode.json", settings: true},
		{path: ".config/opencode/opencode.jsonc", settings: true},
		{path: ".config/opencode/config.json", settings: true},
	},
}

// logins returns the folders of a CLI's login. An attempt whose environment has the credentials
// sees only the CLI's settings, read-only.
func (d *Dispatcher) logins(e *agented.Execution, b agentcli.CLI, vars map[string]string) []sandbox.Folder {
	if b.Name() == agented.BackendCommand {
		return nil
	}
	given := e.Snapshot
	given.Backend, given.Env = b.Name(), map[string]*string{}
	for name := range vars {
		given.Env[name] = nil
	}
	hasKey := given.OwnCredentials() != ""
	if dir := d.outside(vars[agented.ConfigVariable(b.Name())]); dir != "" {
		return []sandbox.Folder{{Path: dir, ReadOnly: hasKey}}
	}
	var out []sandbox.Folder
	for _, l := range loginFolders[b.Name()] {
		if l.settings || !hasKey {
			from := filepath.Join(vars["HOME"], l.path)
			out = append(out, sandbox.Folder{Path: filepath.Join(resolved(vars["HOME"]), l.path), From: from, ReadOnly: l.settings})
		}
	}
	return out
}

// ownFolders lists what an attempt uses at every level. The folders of its trigger count unless they
// are inside the server's own folders.
func (d *Dispatcher) ownFolders(e *agented.Execution, b agentcli.CLI) ([]sandbox.Folder, error) {
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
