package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/backoff"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/searchpath"
	"github.com/agented/agented/internal/shim"
)

// begin starts the attempt of a claimed execution and processes it until it ends. On every path
// it either records the end or leaves the bundle for Recover.
func (d *Dispatcher) begin(ctx context.Context, e *agented.Execution, w *work) {
	log := d.o.Log.With("execution", e.ID, "attempt", e.AttemptNo, "trigger", e.Trigger)
	if d.asked(w) {
		d.finish(ctx, e, noStart(agented.CauseCancelled, "cancelled before it started", d.now()))
		return
	}
	if !d.checkOut(ctx, e, w) {
		return
	}
	ready, err := d.prepare(ctx, e)
	if ctx.Err() != nil {
		return // nothing ran yet: the next server starts it again
	}
	if full(err) {
		d.putBack(ctx, e, err)
		return
	}
	if err != nil {
		log.Info("attempt not started", "err", err)
		d.systemLine(e, agented.Message(err))
		d.finish(ctx, e, noStart(agented.CauseNoStart, agented.Message(err), d.now()))
		return
	}
	if d.asked(w) {
		d.finish(ctx, e, noStart(agented.CauseCancelled, "cancelled before it started", d.now()))
		return
	}
	began := d.now()
	h, err := shim.Start(d.o.Layout.Attempt(e.ID, e.AttemptNo), ready.spec, ready.private, ready.plan.Stdin)
	if full(err) {
		d.putBack(ctx, e, err)
		return
	}
	if err != nil {
		log.Error("start shim", "err", err)
		text := "the attempt's shim could not be started; see the server's log"
		d.systemLine(e, text)
		d.finish(ctx, e, noStart(agented.CauseNoStart, text, d.now()))
		return
	}
	if a := current(e); a != nil {
		a.CLIVersion, a.Sandbox = ready.version, ready.level()
	}
	d.attach(e.ID, w, h)
	log.Info("attempt started", "backend", backendOf(e), "cli_version", ready.version, "sandbox", ready.level())
	noted := d.noteSoon(ctx, e, ready.version, ready.level(), began)
	d.follow(ctx, e, h, noted)
}

// noteAfter is how long an attempt runs before its start is recorded. Shorter attempts record
// start and end together, and the start of an attempt is not delayed by a write.
const noteAfter = 10 * time.Millisecond

// noteSoon records that the attempt is running, unless the returned function is called before.
// After that function has returned, no write is in progress.
func (d *Dispatcher) noteSoon(ctx context.Context, e *agented.Execution, version string, level agented.Sandbox, at time.Time) (enough func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	d.attempts.Go(func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-time.After(noteAfter):
			d.noteStart(ctx, e, version, level, at)
		}
	})
	return func() { cancel(); <-done }
}

// noteStart records that the attempt is running. Only the display depends on it, since recovery
// reads the bundle; so an error of the store must not stop the attempt.
func (d *Dispatcher) noteStart(ctx context.Context, e *agented.Execution, version string, level agented.Sandbox, at time.Time) {
	err := d.o.DB.AttemptStarted(ctx, e.ID, e.Lease, e.AttemptNo, version, level, at)
	if err != nil && ctx.Err() == nil {
		d.o.Log.Warn("record the start of the attempt", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
	}
}

// follow waits until a running attempt ends, then finishes it. If ctx ends first, the shim keeps
// the attempt. follow calls noted when the attempt has ended.
func (d *Dispatcher) follow(ctx context.Context, e *agented.Execution, h *shim.Handle, noted func()) {
	end, brakeEnd := d.watchStall(ctx, e, h), d.watchCost(ctx, e, h)
	exit, err := d.waitFor(ctx, e, h)
	end()
	brakeEnd()
	noted()
	if ctx.Err() != nil {
		return // also if the attempt has ended: the next server finds exit.json
	}
	if err != nil {
		d.o.Log.Warn("shim lost", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
		d.settle(ctx, e)
		return
	}
	d.finish(ctx, e, exit)
}

// waitFor waits until a running attempt ends. A wait that fails while the shim is alive, for
// example for lack of file descriptors, is repeated; stall detection and the cost guard stay
// active meanwhile.
func (d *Dispatcher) waitFor(ctx context.Context, e *agented.Execution, h *shim.Handle) (agented.Exit, error) {
	for pause := (backoff.Backoff{Pause: 100 * time.Millisecond, Longest: 5 * time.Second}); ; {
		exit, err := h.Wait(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, shim.ErrLost) {
			return exit, err
		}
		facts, lookErr := shim.Inspect(d.o.Layout.Attempt(e.ID, e.AttemptNo))
		if lookErr == nil && !facts.Locked {
			return exit, err
		}
		d.o.Log.Warn("wait for the end of the attempt", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.Pause.String())
		if pause.Wait(ctx) != nil {
			return exit, ctx.Err()
		}
	}
}

// settle finishes an attempt whose shim ended without an exit record.
func (d *Dispatcher) settle(ctx context.Context, e *agented.Execution) {
	bundle := d.o.Layout.Attempt(e.ID, e.AttemptNo)
	for pause := (backoff.Backoff{Pause: 100 * time.Millisecond, Longest: 10 * time.Second}); ; {
		mask, err := d.secretsOf(ctx, e)
		var exit agented.Exit
		if err == nil {
			exit, err = shim.Settle(bundle, shim.Private{Mask: mask})
		}
		if err == nil {
			d.finish(ctx, e, exit)
			return
		}
		d.o.Log.Error("settle", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.Pause.String())
		if pause.Wait(ctx) != nil {
			return
		}
	}
}

// prepared holds everything needed to start a shim.
type prepared struct {
	spec    shim.Spec
	private shim.Private
	plan    agentcli.Plan
	version string // version of the CLI, if known without running it
}

// level returns the sandbox level of the attempt.
func (p *prepared) level() agented.Sandbox {
	if p.spec.Sandbox == nil {
		return agented.SandboxOff
	}
	return p.spec.Sandbox.Level
}

// prepare builds the command and the folders of an attempt. Its errors are messages for users.
func (d *Dispatcher) prepare(ctx context.Context, e *agented.Execution) (_ *prepared, err error) {
	b, ok := registry.ByName(backendOf(e))
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
	if err := os.MkdirAll(d.o.Layout.Execution(e.ID), 0o700); err != nil {
		return nil, agented.Errorf(agented.Unavailable, "the execution's folder could not be created: %v", errors.Unwrap(err)).Because(err)
	}
	dir := d.workDir(e)
	if e.Snapshot.WorkingDir == "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the working directory could not be created: %v", errors.Unwrap(err)).Because(err)
		}
	} else if err := usableFolder(dir); err != nil {
		return nil, err
	}
	owner, foreign := d.foreign(e)
	if foreign {
		if err := d.resetAgentFiles(e, owner); err != nil {
			return nil, err
		}
	} else if foreign = d.ownFolder(e); foreign {
		if err := d.removeStartupFiles(e, b); err != nil {
			return nil, err
		}
	}
	own, err := d.accountEnv(b, account)
	if err != nil {
		return nil, err
	}
	// Only an admin can write a spec, and allows a variable by setting it to null. Lookup rejects
	// the server's own secrets even then.
	var allowed []string
	for name, value := range e.Snapshot.Env {
		if value == nil {
			allowed = append(allowed, name)
		}
	}
	spec := specOf(e)
	if spec.Env, err = d.openEnv(e.Snapshot.Env); err != nil {
		return nil, err
	}
	env, err := registry.ChildEnv(b, spec, own, d.o.Lookup, allowed)
	if err != nil {
		return nil, err
	}
	vars := map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	from, err := d.continueFrom(ctx, e, account)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, agented.Errorf(agented.Internal, "the path of the server's program is unknown").Because(err)
	}
	plan, err := b.Plan(agentcli.Request{
		Spec: spec, Prompt: from.prompt, Execution: e.ID, Attempt: e.AttemptNo, Resume: from.session,
		Root: os.Geteuid() == 0, Pieces: e.Source == agented.SourceTurn, Env: vars, BudgetUSD: d.left(ctx, e, from.session),
		Self: self, State: d.stateOf(e), Foreign: foreign,
	})
	if err != nil {
		return nil, err
	}
	for name, value := range plan.Env {
		vars[name] = value
	}
	// A temporary folder per execution, so that files an agent leaves behind are removed with it.
	// A trigger may set another one.
	if _, own := spec.Env["TMPDIR"]; !own {
		temp := d.o.Layout.Temp(e.ID)
		if err := os.MkdirAll(temp, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the temporary folder could not be created: %v", errors.Unwrap(err)).Because(err)
		}
		vars["TMPDIR"] = temp
	}
	vars[agented.EnvExecution] = string(e.ID)
	vars[agented.EnvAttempt] = fmt.Sprint(e.AttemptNo)
	if e.Trigger != "" {
		vars[agented.EnvTrigger] = string(e.Trigger)
	}
	vars["PWD"] = dir
	distrustRepository(vars, foreign)
	if err := d.addMessageTools(e, vars); err != nil {
		return nil, err
	}
	path, err := lookPath(plan.Args[0], vars["PATH"], dir)
	if err != nil {
		if install := b.Install(); install != "" {
			return nil, agented.Errorf(agented.Invalid, "%s is not installed, or not on the server's PATH: %s", plan.Args[0], install)
		}
		return nil, agented.Errorf(agented.Invalid, "program %q: %v", plan.Args[0], err)
	}
	box, err := d.box(e, b, vars)
	if err != nil {
		return nil, err
	}
	if from.session != "" {
		if err := d.o.DB.NoteResume(ctx, e.ID, e.Lease, e.AttemptNo, from.session); err != nil {
			return nil, err
		}
	}
	if from.note != "" {
		d.systemLine(e, from.note)
	}
	first, err := d.lastSeq(e)
	if err != nil {
		return nil, agented.Errorf(agented.Internal, "the run log could not be read").Because(err)
	}
	mask, err := d.secretsOf(ctx, e)
	if err != nil {
		return nil, err
	}
	p := &prepared{plan: plan, private: shim.Private{Mask: mask}}
	for name, value := range vars {
		p.private.Env = append(p.private.Env, name+"="+value)
	}
	p.spec = shim.Spec{
		Execution: e.ID, Trigger: e.Trigger, Attempt: e.AttemptNo, FirstSeq: first + 1,
		Path: path, Args: plan.Args, Dir: dir, Capture: plan.Capture, Stdin: plan.Stdin != nil,
		Timeout: time.Duration(e.Snapshot.TimeoutSeconds) * time.Second,
		Silence: time.Duration(e.Snapshot.SilenceSeconds) * time.Second,
		Grace:   d.o.Grace, OutputCap: d.o.OutputCap, MinFree: d.o.MinFree,
		MaxMemory: d.o.MaxMemory, MaxProcesses: d.o.MaxProcesses, Sandbox: box,
		CreatedAt: d.now(),
	}
	if b.Program() != "" {
		p.version = d.versions.Cached(path)
		if p.version == "" {
			// Running the CLI can take seconds, so the attempt does not wait for it.
			d.attempts.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				defer cancel()
				if _, err := d.versions.Version(ctx, b, path, p.private.Env); err != nil {
					d.o.Log.Info("CLI version", "backend", b.Name(), "err", err)
				}
			})
		}
	}
	return p, nil
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

// lastSeq returns the number of the last line of the execution's log.
func (d *Dispatcher) lastSeq(e *agented.Execution) (agented.Seq, error) {
	r, err := runlog.OpenReader(d.o.Layout.Execution(e.ID))
	if errors.Is(err, agented.NotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return r.LastSeq()
}

// systemLine appends a line to the log of an execution that has no shim at the moment. Errors are
// logged only.
func (d *Dispatcher) systemLine(e *agented.Execution, text string) {
	dir := d.o.Layout.Execution(e.ID)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var w *runlog.Writer
		if w, err = runlog.OpenWriter(dir, d.now()); err == nil {
			err = errors.Join(w.AppendSystem(e.AttemptNo, d.now(), "%s", text), w.Close())
		}
	}
	if err != nil {
		d.o.Log.Warn("write a line to the run log", "execution", e.ID, "err", err)
	}
}

// openEnv decrypts the values of a trigger's variables.
func (d *Dispatcher) openEnv(sealed map[string]*string) (map[string]*string, error) {
	if d.o.OpenEnv == nil || len(sealed) == 0 {
		return sealed, nil
	}
	out := make(map[string]*string, len(sealed))
	for name, value := range sealed {
		if value != nil {
			text, err := d.o.OpenEnv(name, *value)
			if err != nil {
				return nil, err
			}
			value = &text
		}
		out[name] = value
	}
	return out, nil
}

// secretsOf lists the values that are masked in everything an execution prints:
// those that the server holds, the credentials of its account, and the trigger's
// own variables as [agented.Spec.SecretEnv] decides. Nothing else decides that.
func (d *Dispatcher) secretsOf(ctx context.Context, e *agented.Execution) ([]string, error) {
	out, err := d.accountSecrets(ctx, e)
	if err != nil {
		return nil, err
	}
	if d.o.Secrets != nil {
		out = append(out, d.o.Secrets()...)
	}
	if token := d.token(e); token != "" {
		out = append(out, token)
	}
	env, err := d.openEnv(e.Snapshot.Env)
	if err != nil {
		return out, nil // then no process received them either
	}
	for name, value := range env {
		if !e.Snapshot.SecretEnv(name) {
			continue
		}
		if value != nil {
			out = append(out, *value)
		} else if v, ok := d.o.Lookup(name); ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// noStart is the exit of an attempt whose process was never started.
func noStart(cause agented.Cause, detail string, at time.Time) agented.Exit {
	return agented.Exit{Cause: cause, Detail: detail, StartedAt: at, FinishedAt: at}
}
