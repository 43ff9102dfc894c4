package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// begin starts a claimed execution's attempt and carries it to its end. Every
// way out either writes the end down or leaves the bundle for Recover.
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
		return // nothing ran yet: the next server begins it anew
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
		text := "the attempt's supervisor could not be started; the server's log says why"
		d.systemLine(e, text)
		d.finish(ctx, e, noStart(agented.CauseNoStart, text, d.now()))
		return
	}
	if a := current(e); a != nil {
		a.CLIVersion = ready.version
	}
	if d.attach(w, h) {
		if err := h.Stop(agented.CauseCancelled); err != nil {
			log.Warn("stop", "err", err)
		}
	}
	log.Info("attempt started", "backend", backendOf(e), "cli_version", ready.version)
	noted := d.noteSoon(ctx, e, ready.version, began)
	d.follow(ctx, e, h, noted)
}

// noteAfter is how long an attempt runs before its start is written down. What
// ends sooner has it with its end, and what begins does so undisturbed.
const noteAfter = 10 * time.Millisecond

// noteSoon writes down that the attempt runs, unless the function that it returns
// is called before. When that returns, nothing is being written any more.
func (d *Dispatcher) noteSoon(ctx context.Context, e *agented.Execution, version string, at time.Time) (enough func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	d.attempts.Go(func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-time.After(noteAfter):
			d.noteStart(ctx, e, version, at)
		}
	})
	return func() { cancel(); <-done }
}

// noteStart writes down that the attempt runs. It is for people only (recovery
// asks the bundle), so a store that does not answer must not stop the attempt.
func (d *Dispatcher) noteStart(ctx context.Context, e *agented.Execution, version string, at time.Time) {
	err := d.o.DB.AttemptStarted(ctx, e.ID, e.Lease, e.AttemptNo, version, at)
	if err != nil && ctx.Err() == nil {
		d.o.Log.Warn("note the attempt's start", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
	}
}

// follow waits for a running attempt to end, then finishes it. When ctx ends
// first the attempt is left to its shim. It calls noted when the attempt has ended.
func (d *Dispatcher) follow(ctx context.Context, e *agented.Execution, h *shim.Handle, noted func()) {
	end, brakeEnd := d.watched(ctx, e, h), d.braked(ctx, e, h)
	exit, err := h.Wait(ctx)
	end()
	brakeEnd()
	noted()
	if ctx.Err() != nil {
		return // even when both happened: the next server finds exit.json
	}
	if err != nil {
		d.o.Log.Warn("shim lost", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
		d.settle(ctx, e)
		return
	}
	d.finish(ctx, e, exit)
}

// settle finishes an attempt whose shim is gone without an exit record.
func (d *Dispatcher) settle(ctx context.Context, e *agented.Execution) {
	bundle := d.o.Layout.Attempt(e.ID, e.AttemptNo)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		mask, err := d.secretsOf(ctx, e)
		var exit agented.Exit
		if err == nil {
			exit, err = shim.Settle(bundle, shim.Private{Mask: mask})
		}
		if err == nil {
			d.finish(ctx, e, exit)
			return
		}
		d.o.Log.Error("settle", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// prepared is everything that a shim is started with.
type prepared struct {
	spec    shim.Spec
	private shim.Private
	plan    backend.Plan
	version string // of the CLI, if it was known at once
}

// prepare builds the command of an attempt and its folders. Its errors are
// sentences for people.
func (d *Dispatcher) prepare(ctx context.Context, e *agented.Execution) (_ *prepared, err error) {
	b, ok := backend.ByName(backendOf(e))
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
	if err := os.MkdirAll(d.o.Layout.Execution(e.ID), 0o700); err != nil {
		return nil, agented.Errorf(agented.Unavailable, "the execution's folder could not be made: %v", errors.Unwrap(err)).Because(err)
	}
	dir := d.workDir(e)
	if e.Snapshot.WorkingDir == "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the working directory could not be made: %v", errors.Unwrap(err)).Because(err)
		}
	} else if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, agented.Errorf(agented.Invalid, "working directory %s is not there: create it, or change the trigger's working_dir", dir)
	}
	own, err := d.accountEnv(b, account)
	if err != nil {
		return nil, err
	}
	// Only an admin writes a spec, and naming a variable there with null is how
	// an admin allows it. Lookup refuses the server's own secrets even so.
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
	env, err := backend.ChildEnv(b, spec, own, d.o.Lookup, allowed)
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
		return nil, agented.Errorf(agented.Internal, "the server does not know where its own program is").Because(err)
	}
	plan, err := b.Plan(backend.Request{
		Spec: spec, Prompt: from.prompt, Execution: e.ID, Attempt: e.AttemptNo, Resume: from.session,
		Root: os.Geteuid() == 0, Pieces: e.Source == agented.SourceTurn, Env: vars,
		Self: self, State: d.stateOf(e),
	})
	if err != nil {
		return nil, err
	}
	for name, value := range plan.Env {
		vars[name] = value
	}
	// Temporary files of its own, so that what an agent leaves lying about goes
	// with it. A trigger's own choice stands.
	if _, own := spec.Env["TMPDIR"]; !own {
		temp := d.o.Layout.Temp(e.ID)
		if err := os.MkdirAll(temp, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the folder for temporary files could not be made: %v", errors.Unwrap(err)).Because(err)
		}
		vars["TMPDIR"] = temp
	}
	vars[agented.EnvExecution] = string(e.ID)
	vars[agented.EnvAttempt] = fmt.Sprint(e.AttemptNo)
	if e.Trigger != "" {
		vars[agented.EnvTrigger] = string(e.Trigger)
	}
	vars["PWD"] = dir
	if err := d.giveBus(e, vars); err != nil {
		return nil, err
	}
	path, err := lookPath(plan.Args[0], vars["PATH"], dir)
	if err != nil {
		if install := b.Install(); install != "" {
			return nil, agented.Errorf(agented.Invalid, "%s is not installed, or not on the server's PATH: %s", plan.Args[0], install)
		}
		return nil, agented.Errorf(agented.Invalid, "program %q: %v", plan.Args[0], err)
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
		CreatedAt: d.now(),
	}
	if b.Program() != "" {
		p.version = d.versions.Cached(path)
		if p.version == "" {
			// Asking can take seconds; the attempt does not wait for it.
			d.attempts.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				defer cancel()
				if _, err := d.versions.Version(ctx, path, p.private.Env); err != nil {
					d.o.Log.Info("CLI version", "backend", b.Name(), "err", err)
				}
			})
		}
	}
	return p, nil
}

// stateOf is where a backend that is part of Agented keeps the sessions of an
// execution: turns of one conversation share a folder.
func (d *Dispatcher) stateOf(e *agented.Execution) string {
	dir := d.o.Layout.Execution(e.ID)
	if c := e.Cause; c != nil && c.Conversation != "" {
		dir = d.o.Layout.Conversation(c.Conversation)
	}
	return filepath.Join(dir, "sessions")
}

// lookPath finds the program in the PATH that the child will have, not in the
// server's own. A relative name with a slash is taken from the working
// directory, as a shell there would.
func lookPath(program, path, dir string) (string, error) {
	if strings.ContainsRune(program, '/') {
		if !filepath.IsAbs(program) {
			program = filepath.Join(dir, program)
		}
		return program, executable(program)
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			continue // the working directory may be somebody else's repository
		}
		file := filepath.Join(d, program)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", errors.New("not found on the PATH of the execution")
}

func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.ErrNotExist
	case err != nil:
		return errors.Unwrap(err)
	case info.IsDir():
		return errors.New("is a directory")
	case info.Mode()&0o111 == 0:
		return exec.ErrNotFound
	}
	return nil
}

// lastSeq is the number of the last line that the execution's log has.
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

// systemLine adds a line of ours to the log of an execution that has no shim
// at the moment. A log that cannot be written does not stop the rest.
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

// openEnv opens the values of a trigger's variables.
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

// secretsOf lists what must not appear in the execution's log: what the server
// holds, the credentials of its account, and the trigger's own variables that
// are named like a secret.
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
		return out, nil // then no process got them either
	}
	for name, value := range env {
		if !agented.SecretName(name) {
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

// noStart is the exit of an attempt that never had a process.
func noStart(cause agented.Cause, detail string, at time.Time) agented.Exit {
	return agented.Exit{Cause: cause, Detail: detail, StartedAt: at, FinishedAt: at}
}
