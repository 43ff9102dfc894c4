package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/broker"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/searchpath"
	"github.com/agented/agented/internal/shim"
)

// prepared holds everything needed to start a shim.
type prepared struct {
	spec    shim.Spec
	private shim.Private
	plan    agentcli.Plan
	version string // version of the CLI, if known without running it
	level   agented.Isolation
}

// preparation is an attempt that is being prepared. Each step fills fields that later steps use.
type preparation struct {
	e       *agented.Execution
	cli     agentcli.CLI
	account *agented.Account  // nil if the execution uses none
	secrets map[string]string // named secrets of the attempt
	dir     string            // working directory
	foreign bool              // an agent may have written the folder's settings for CLIs and git
	spec    agented.Spec      // with decrypted variables
	vars    map[string]string
	from    continuation
	plan    agentcli.Plan
	level   agented.Isolation
	broker  *broker.Handed // nil: the environment contains the credentials
}

// prepare builds the command and the folders of an attempt. Its errors are messages for users.
func (d *Dispatcher) prepare(ctx context.Context, e *agented.Execution, secrets map[string]string) (_ *prepared, err error) {
	cli, ok := registry.ByName(backendOf(e))
	if !ok {
		return nil, agented.Errorf(agented.Invalid, "this version of Agented has no backend %q", backendOf(e))
	}
	account, err := d.accountOf(ctx, e)
	if err != nil {
		return nil, err
	}
	if err := d.fillInbox(ctx, e); err != nil {
		return nil, err
	}
	if err := d.fillChanges(ctx, e); err != nil {
		return nil, err
	}
	p := &preparation{e: e, cli: cli, account: account, secrets: secrets, level: d.level(e)}
	defer func() {
		if err != nil {
			p.broker.Close()
		}
	}()
	if err := d.prepareFolders(p); err != nil {
		return nil, err
	}
	if err := d.prepareEnv(p); err != nil {
		return nil, err
	}
	if err := d.keepCredentials(p); err != nil {
		return nil, err
	}
	if err := d.planCommand(ctx, p); err != nil {
		return nil, err
	}
	if err := d.completeEnv(p); err != nil {
		return nil, err
	}
	path, err := p.program()
	if err != nil {
		return nil, err
	}
	box, err := d.box(p, path)
	if err != nil {
		return nil, err
	}
	if err := d.noteContinuation(ctx, p); err != nil {
		return nil, err
	}
	ready, err := d.shimInput(ctx, p, path, box)
	if err != nil {
		return nil, err
	}
	ready.version = d.cliVersion(cli, path, ready.private.Env)
	return ready, nil
}

// prepareFolders creates the folders of the execution, and removes what another agent may have left
// in the working directory to be run by this one.
func (d *Dispatcher) prepareFolders(p *preparation) error {
	e := p.e
	if err := os.MkdirAll(d.o.Layout.Execution(e.ID), 0o700); err != nil {
		return agented.Errorf(agented.Unavailable, "the execution's folder could not be created: %v", errors.Unwrap(err)).Because(err)
	}
	p.dir = d.workDir(e)
	if e.Snapshot.WorkingDir == "" {
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			return agented.Errorf(agented.Unavailable, "the working directory could not be created: %v", errors.Unwrap(err)).Because(err)
		}
	} else if err := usableFolder(p.dir); err != nil {
		return err
	}
	owner, foreign := d.foreign(e)
	if foreign {
		p.foreign = true
		return d.resetAgentFiles(e, owner)
	}
	if p.foreign = d.ownFolder(e); p.foreign {
		return d.removeStartupFiles(e, p.cli)
	}
	return nil
}

// prepareEnv builds the environment that the command is planned with.
func (d *Dispatcher) prepareEnv(p *preparation) error {
	own, err := d.accountEnv(p.cli, p.account, p.secrets)
	if err != nil {
		return err
	}
	// Only an admin can write a spec, and allows a variable by setting it to null. Lookup rejects
	// the server's own secrets even then.
	var allowed []string
	for name, value := range p.e.Snapshot.Env {
		if value == nil {
			allowed = append(allowed, name)
		}
	}
	p.spec = specOf(p.e)
	if p.spec.Publish != nil {
		// CLIs only write into folders that are passed to them.
		p.spec.Paths = append(slices.Clone(p.spec.Paths), d.recordsOf(p.e.ID).Out(p.e.AttemptNo))
	}
	if p.spec.Env, err = d.openEnv(p.e.Snapshot.Env, p.secrets); err != nil {
		return err
	}
	env, err := registry.ChildEnv(p.cli, p.spec, own, d.o.Lookup, allowed)
	if err != nil {
		return err
	}
	p.vars = map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		p.vars[name] = value
	}
	return nil
}

// planCommand decides which session the attempt resumes, and plans the command.
func (d *Dispatcher) planCommand(ctx context.Context, p *preparation) (err error) {
	if p.from, err = d.continueFrom(ctx, p.e, p.account); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return agented.Errorf(agented.Internal, "the path of the server's program is unknown").Because(err)
	}
	p.from = repairFrom(p.e, p.from)
	request := agentcli.Request{
		Spec: p.spec, Prompt: p.from.prompt, Execution: p.e.ID, Attempt: p.e.AttemptNo, Resume: p.from.session,
		Root: os.Geteuid() == 0, Pieces: p.e.Source == agented.SourceTurn, Env: p.vars, BudgetUSD: d.o.Costs.Remaining(ctx, p.e, p.from.session),
		Self: self, State: d.stateOf(p.e), Foreign: p.foreign,
	}
	if err := d.askForResult(p.e, &request); err != nil {
		return err
	}
	p.plan, err = p.cli.Plan(request)
	return err
}

// completeEnv adds the variables of the command, of the execution, and of the tools that it finds
// on its PATH.
func (d *Dispatcher) completeEnv(p *preparation) error {
	e, vars := p.e, p.vars
	for name, value := range p.plan.Env {
		vars[name] = value
	}
	// A temporary folder per execution, so that files an agent leaves behind are removed with it.
	// A trigger may set another one.
	if _, own := p.spec.Env["TMPDIR"]; !own {
		temp := d.o.Layout.Temp(e.ID)
		if err := os.MkdirAll(temp, 0o700); err != nil {
			return agented.Errorf(agented.Unavailable, "the temporary folder could not be created: %v", errors.Unwrap(err)).Because(err)
		}
		vars["TMPDIR"] = temp
	}
	vars[agented.EnvExecution] = string(e.ID)
	vars[agented.EnvAttempt] = fmt.Sprint(e.AttemptNo)
	out, err := changes.MakeOut(d.recordsOf(e.ID), e.AttemptNo)
	if err != nil {
		return agented.Errorf(agented.Unavailable, "the folder for artifacts could not be created: %v", errors.Unwrap(err)).Because(err)
	}
	vars[agented.EnvOut] = out
	if e.Trigger != "" {
		vars[agented.EnvTrigger] = string(e.Trigger)
	}
	vars["PWD"] = p.dir
	distrustRepository(vars, p.foreign)
	configureGit(vars, p.broker.GitConfig())
	return d.addMessageTools(e, vars)
}

// program returns the path of the program to start.
func (p *preparation) program() (string, error) {
	name := p.plan.Args[0]
	path, err := lookPath(name, p.vars["PATH"], p.dir)
	if err == nil {
		return path, nil
	}
	if install := p.cli.Install(); install != "" {
		return "", agented.Errorf(agented.Invalid, "%s is not installed, or not on the server's PATH: %s", name, install)
	}
	return "", agented.Errorf(agented.Invalid, "program %q: %v", name, err)
}

// noteContinuation records which session the attempt resumes, and why if there is a choice.
func (d *Dispatcher) noteContinuation(ctx context.Context, p *preparation) error {
	if p.from.session != "" {
		if err := d.o.DB.NoteResume(ctx, p.e.ID, p.e.Lease, p.e.AttemptNo, p.from.session); err != nil {
			return err
		}
	}
	if p.from.note != "" {
		d.systemLine(p.e, p.from.note)
	}
	return nil
}

// shimInput returns what the shim is started with.
func (d *Dispatcher) shimInput(ctx context.Context, p *preparation, path string, box *shim.Box) (*prepared, error) {
	e := p.e
	first, err := d.lastSeq(e)
	if err != nil {
		return nil, agented.Errorf(agented.Internal, "the run log could not be read").Because(err)
	}
	mask, err := d.secretsOf(ctx, e)
	if err != nil {
		return nil, err
	}
	ready := &prepared{plan: p.plan, level: p.level, private: shim.Private{Mask: append(mask, p.broker.Placeholders()...), Broker: p.broker}}
	for name, value := range p.vars {
		ready.private.Env = append(ready.private.Env, name+"="+value)
	}
	limits := e.Snapshot.Limits.Or(d.o.Resources)
	ready.spec = shim.Spec{
		Execution: e.ID, Trigger: e.Trigger, Attempt: e.AttemptNo, FirstSeq: first + 1,
		Path: path, Args: p.plan.Args, Dir: p.dir, Capture: p.plan.Capture, Stdin: p.plan.Stdin != nil,
		Timeout: time.Duration(e.Snapshot.TimeoutSeconds) * time.Second,
		Silence: time.Duration(e.Snapshot.SilenceSeconds) * time.Second,
		Grace:   d.o.Grace, OutputCap: d.o.OutputCap, MinFree: d.o.MinFree,
		MaxMemory: int64(limits.Memory) << 20, MaxSwap: int64(limits.Swap) << 20, MaxProcesses: limits.PIDs, CPUWeight: limits.CPUWeight, Sandbox: box, SandboxReason: p.level.Reason,
		MaxDisk: int64(limits.Disk) << 20, DiskFolders: d.diskFolders(p),
		CreatedAt: d.now(),
	}
	return ready, nil
}

// cliVersion returns the version of a CLI if it is known. Otherwise it starts to find it out: that
// can take seconds, so the attempt does not wait for it.
func (d *Dispatcher) cliVersion(cli agentcli.CLI, path string, env []string) string {
	if cli.Program() == "" {
		return ""
	}
	version := d.versions.Cached(path)
	if version == "" {
		d.attempts.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			if _, err := d.versions.Version(ctx, cli, path, env); err != nil {
				d.o.Log.Info("CLI version", "backend", cli.Name(), "err", err)
			}
		})
	}
	return version
}

// distrustRepository keeps git from running programs that a foreign repository names, unless the
// environment configures git itself.
func distrustRepository(vars map[string]string, foreign bool) {
	if _, own := vars["GIT_CONFIG_COUNT"]; own || !foreign {
		return
	}
	for i, kv := range [][2]string{{"core.hooksPath", os.DevNull}, {"core.fsmonitor", "false"}, {"safe.bareRepository", "explicit"}} {
		vars[fmt.Sprintf("GIT_CONFIG_KEY_%d", i)], vars[fmt.Sprintf("GIT_CONFIG_VALUE_%d", i)] = kv[0], kv[1]
		vars["GIT_CONFIG_COUNT"] = fmt.Sprint(i + 1)
	}
}

// configureGit adds settings for git to an environment.
func configureGit(vars map[string]string, settings [][2]string) {
	if len(settings) == 0 {
		return
	}
	count, _ := strconv.Atoi(vars["GIT_CONFIG_COUNT"])
	for _, s := range settings {
		vars[fmt.Sprintf("GIT_CONFIG_KEY_%d", count)], vars[fmt.Sprintf("GIT_CONFIG_VALUE_%d", count)] = s[0], s[1]
		count++
	}
	vars["GIT_CONFIG_COUNT"] = strconv.Itoa(count)
}

// stateOf returns the folder in which a built-in backend stores the sessions of an execution.
// Turns of one conversation share a folder.
func (d *Dispatcher) stateOf(e *agented.Execution) string {
	dir := d.o.Layout.Execution(e.ID)
	if c := e.Cause; c != nil && c.Conversation != "" {
		dir = d.o.Layout.Conversation(c.Conversation)
	}
	return filepath.Join(dir, "sessions")
}

// usableFolder returns an error if a folder cannot be a working directory.
func usableFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return agented.Errorf(agented.Invalid, "working directory %s does not exist: create it, or change the trigger's working_dir", dir)
	case errors.Is(err, syscall.ENOTDIR):
		return agented.Errorf(agented.Invalid, "the path of working directory %s contains a file instead of a folder: change the trigger's working_dir", dir)
	case errors.Is(err, os.ErrPermission):
		return agented.Errorf(agented.Invalid, "working directory %s cannot be read by the server's user (permission denied): give that user access, or change the trigger's working_dir", dir)
	case err != nil:
		return agented.Errorf(agented.Invalid, "working directory %s cannot be used (%v): change the trigger's working_dir", dir, errors.Unwrap(err))
	case !info.IsDir():
		return agented.Errorf(agented.Invalid, "working directory %s is a file: set the trigger's working_dir to a folder", dir)
	}
	return nil
}

// lookPath finds the program on the PATH of the child process, not of the server. A relative path
// with a slash is resolved against the working directory, as in a shell.
func lookPath(program, path, dir string) (string, error) {
	if strings.ContainsRune(program, '/') {
		if !filepath.IsAbs(program) {
			program = filepath.Join(dir, program)
		}
		return program, searchpath.Executable(program)
	}
	file, err := searchpath.Find(program, path)
	if errors.Is(err, searchpath.ErrNotFound) {
		err = errors.New("not found on the PATH of the execution")
	}
	return file, err
}
