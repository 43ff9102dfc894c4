package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/backoff"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/contract"
	"github.com/agented/agented/internal/proposal"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// checkOutputCap is the most that the command of a contract may print.
const checkOutputCap = 64 << 20

// checkContract evaluates the outcome contract after an attempt that succeeded, and changes its end
// if it is not met. It can be repeated: a server that is killed leaves it to the next one. It
// returns an error only if ctx has ended.
func (d *Dispatcher) checkContract(ctx context.Context, e *agented.Execution, result *agented.Result, end *store.AttemptEnd) error {
	x := e.Snapshot.Expect
	if x.Empty() || end.Attempt.State != agented.StateSuccess {
		return nil
	}
	mask, err := d.masker(ctx, e)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		d.o.Log.Error("check the outcome", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
		d.notMet(end, []agented.Clause{{Name: "expect", Text: "it could not be evaluated; see the server's log", Failed: true}}, nil)
		return nil
	}
	facts := contract.Facts{Text: result.Text, Output: result.Output}
	if x.Changes != nil {
		if facts.Changes, err = changes.Load(d.recordsOf(e.ID), e.AttemptNo); err != nil && !errors.Is(err, agented.NotFound) {
			d.o.Log.Error("check the outcome", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
		}
	}
	if x.Published != "" {
		facts.Published, facts.Repairable = d.plan(e, end, mask), proposal.Repairable
	}
	clauses, output := contract.Evaluate(x, facts)
	if len(x.Command) > 0 {
		clause, exit, err := d.runCheck(ctx, e, x)
		if err != nil {
			return err
		}
		if exit.Cause == agented.CauseCancelled {
			a := &end.Attempt
			a.State, a.Reason = agented.StateCancelled, "cancelled while its outcome was checked"
			end.Next, end.Reason, end.Error = agented.StateCancelled, a.Reason, a.Reason
			return nil
		}
		clauses = append(clauses, clause)
		end.Attempt.FinishedAt = d.now()
		if n, err := d.lastSeq(e); err == nil {
			end.LastSeq = max(end.LastSeq, n)
		}
	}
	for i := range clauses {
		c := &clauses[i]
		c.Text, c.Evidence = mask.MaskString(c.Text), mask.MaskString(c.Evidence)
	}
	output, bad := contract.Mask(mask, output)
	if bad != "" {
		clauses = append(clauses, agented.Clause{Name: "result_schema", Text: bad})
	}
	if contract.Reason(clauses) != "" {
		d.notMet(end, clauses, result.Pending)
		return nil
	}
	end.Attempt.Contract = &agented.Contract{Met: true, Clauses: clauses, Output: output}
	return nil
}

// notMet changes the end of an attempt whose contract is not met.
func (d *Dispatcher) notMet(end *store.AttemptEnd, clauses []agented.Clause, pending []string) {
	a := &end.Attempt
	reason := contract.Reason(clauses)
	if n := len(pending); n > 0 {
		reason += fmt.Sprintf("; background work had not ended when the agent did (%s)", strings.Join(pending[:min(n, 3)], ", "))
	}
	a.Contract = &agented.Contract{Clauses: clauses}
	a.State, a.Class = agented.StateFailed, agented.ClassNoEffect
	a.Reason = strings.TrimPrefix(a.Reason+"; "+reason, "; ")
	for _, c := range clauses {
		if !c.Met {
			a.Evidence = agentcli.Clip(c.Evidence, agented.MaxEvidence)
			break
		}
	}
	end.Next, end.Reason, end.Error = agented.StateFailed, a.Reason, a.Reason
}

// repairs returns how many attempts may repair the outcome of an execution.
func repairs(e *agented.Execution, end *store.AttemptEnd) int {
	if c := end.Attempt.Contract; c == nil || c.Met || contract.Failed(c.Clauses) {
		return 0
	}
	return e.Snapshot.Expect.Repair
}

// toRepair returns the latest attempt before the current one whose contract was not met, or nil.
func toRepair(e *agented.Execution) *agented.Attempt {
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		if a := &e.Attempts[i]; a.Number < e.AttemptNo && a.Class == agented.ClassNoEffect && a.Contract != nil {
			return a
		}
	}
	return nil
}

// repairFrom completes how an attempt continues if it repairs the outcome of an earlier one.
func repairFrom(e *agented.Execution, c continuation) continuation {
	a := toRepair(e)
	if a == nil {
		return c
	}
	text := contract.RepairPrompt(a.Contract.Clauses)
	if c.session != "" && a.Number == e.AttemptNo-1 {
		c.prompt = text
	} else {
		c.prompt += "\n\n" + text
	}
	return c
}

// askForResult passes the schema of the result to a CLI, or adds it to the prompt.
func (d *Dispatcher) askForResult(e *agented.Execution, r *agentcli.Request) error {
	x := e.Snapshot.Expect
	if x == nil || len(x.ResultSchema) == 0 || r.Spec.Backend == agented.BackendCommand {
		return nil
	}
	cli, ok := registry.ByName(r.Spec.Backend)
	if !ok {
		return nil
	}
	switch accepts := cli.Rules().ResultSchema; {
	case accepts == agentcli.AnySchema, accepts == agentcli.StrictSchema && contract.Strict(x.ResultSchema):
		dir := d.o.Layout.Temp(e.ID)
		r.SchemaFile = filepath.Join(dir, "result-schema.json")
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = os.WriteFile(r.SchemaFile, x.ResultSchema, 0o600)
		}
		if err != nil {
			return agented.Errorf(agented.Unavailable, "the schema of the result could not be written: %v", errors.Unwrap(err)).Because(err)
		}
		r.ResultSchema = x.ResultSchema
	case r.Resume == "":
		r.Prompt += contract.SchemaPrompt(x.ResultSchema)
	}
	return nil
}

// runCheck runs the command of a contract in the working directory of an attempt, once: if it runs
// already, or has run, runCheck continues from its bundle. It returns an error only if ctx has
// ended.
func (d *Dispatcher) runCheck(ctx context.Context, e *agented.Execution, x *agented.Expect) (agented.Clause, agented.Exit, error) {
	bundle := d.o.Layout.Check(e.ID, e.AttemptNo)
	failed := func(text string) (agented.Clause, agented.Exit, error) {
		return agented.Clause{Name: "command", Text: text, Failed: true}, agented.Exit{}, nil
	}
	for pause := (backoff.Backoff{Pause: 100 * time.Millisecond, Longest: 5 * time.Second}); ; {
		facts, err := shim.Inspect(bundle)
		var exit agented.Exit
		var ended bool
		if err == nil {
			exit, ended, err = d.stepCheck(ctx, e, x, bundle, shim.Decide(facts))
		}
		if ctx.Err() != nil {
			return agented.Clause{}, exit, ctx.Err()
		}
		var refused *agented.Error
		switch {
		case err == nil && ended:
			if exit.Cause == agented.CauseNoStart {
				return failed("it could not be started: " + exit.Detail)
			}
			return d.checkClause(e, x, bundle, exit), exit, nil
		case errors.As(err, &refused) && refused.Kind == agented.Invalid, full(err):
			d.systemLine(e, "The expected outcome cannot be checked: "+agented.Message(err))
			return failed("it could not be started: " + agented.Message(err))
		case err != nil:
			d.o.Log.Warn("check the outcome", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.Pause.String())
			if pause.Wait(ctx) != nil {
				return agented.Clause{}, exit, ctx.Err()
			}
		}
	}
}

// stepCheck acts on the state of the bundle of a check. ended is set if exit is its end.
func (d *Dispatcher) stepCheck(ctx context.Context, e *agented.Execution, x *agented.Expect, bundle string, state shim.BundleState) (exit agented.Exit, ended bool, err error) {
	switch state {
	case shim.NeverStarted:
		if d.cancelAsked(e.ID) {
			return agented.Exit{Cause: agented.CauseCancelled}, true, nil
		}
		if err := os.RemoveAll(bundle); err != nil {
			return exit, false, err
		}
		h, err := d.startCheck(ctx, e, x, bundle)
		if err != nil {
			return exit, false, err
		}
		d.attachCheck(e.ID, h)
		_, err = h.Wait(ctx)
		return exit, false, lostIsNoError(err)
	case shim.Running:
		h, err := shim.Adopt(bundle)
		if err != nil {
			return exit, false, err
		}
		d.attachCheck(e.ID, h)
		d.syncPause(ctx, e, h)
		_, err = h.Wait(ctx)
		return exit, false, lostIsNoError(err)
	case shim.Lost:
		secrets, err := d.secretsOf(ctx, e)
		if err == nil {
			_, err = shim.Settle(bundle, shim.Private{Mask: secrets})
		}
		return exit, false, err
	}
	if exit, err = shim.ReadExit(bundle); err != nil {
		return exit, false, err
	}
	if exit.Cause == agented.CauseLost || exit.Cause == agented.CauseShutdown {
		// The agent did not cause it: run it again, once.
		if err := os.Rename(bundle, bundle+"-lost"); err == nil {
			return exit, false, nil
		}
	}
	return exit, true, nil
}

// lostIsNoError returns nil for a lost shim, whose bundle shows it.
func lostIsNoError(err error) error {
	if errors.Is(err, shim.ErrLost) {
		return nil
	}
	return err
}

// cancelAsked reports whether a stop of the execution was requested.
func (d *Dispatcher) cancelAsked(id agented.ExecutionID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.running[id]
	return w != nil && w.stop
}

// attachCheck makes requests to stop or pause the execution reach the command of its contract.
func (d *Dispatcher) attachCheck(id agented.ExecutionID, h *shim.Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.running[id]
	if w == nil {
		return
	}
	w.handle, w.stopping = h, false
	if w.stop {
		d.stopSoon(id, w)
	}
}

// startCheck starts the command of a contract at the sandbox level of the attempt. It receives the
// variables of the trigger, but no credentials of an account.
func (d *Dispatcher) startCheck(ctx context.Context, e *agented.Execution, x *agented.Expect, bundle string) (*shim.Handle, error) {
	cli, _ := registry.ByName(agented.BackendCommand)
	secrets, err := d.receiveSecrets(ctx, e)
	if err != nil {
		return nil, err
	}
	p := &preparation{e: e, cli: cli, secrets: secrets, dir: d.workDir(e), level: d.levelOfBundle(e)}
	if p.level.Level == "" {
		return nil, agented.Errorf(agented.Invalid, "the sandbox level of the attempt is unknown, because its files are missing")
	}
	if err := usableFolder(p.dir); err != nil {
		return nil, err
	}
	if _, p.foreign = d.foreign(e); !p.foreign {
		p.foreign = d.ownFolder(e)
	}
	if err := d.prepareEnv(p); err != nil {
		return nil, err
	}
	vars := p.vars
	if _, own := p.spec.Env["TMPDIR"]; !own {
		vars["TMPDIR"] = d.o.Layout.Temp(e.ID)
		if err := os.MkdirAll(vars["TMPDIR"], 0o700); err != nil {
			return nil, err
		}
	}
	vars[agented.EnvExecution], vars[agented.EnvAttempt], vars["PWD"] = string(e.ID), fmt.Sprint(e.AttemptNo), p.dir
	if e.Trigger != "" {
		vars[agented.EnvTrigger] = string(e.Trigger)
	}
	distrustRepository(vars, p.foreign)
	p.plan.Args = x.Command
	path, err := p.program()
	if err != nil {
		return nil, err
	}
	box, err := d.box(p, path)
	if err != nil {
		return nil, err
	}
	d.systemLine(e, "Checking the expected outcome: "+redactArgs(ctx, d, e, x.Command))
	ready, err := d.shimInput(ctx, p, path, box)
	if err != nil {
		return nil, err
	}
	s := &ready.spec
	s.Capture, s.Stream, s.Stdin = agented.CapturePipe, agented.System, false
	s.Timeout, s.Silence, s.OutputCap = x.CheckTimeout(), 0, min(s.OutputCap, checkOutputCap)
	return shim.Start(bundle, *s, ready.private, nil)
}

// redactArgs returns a command for the log.
func redactArgs(ctx context.Context, d *Dispatcher, e *agented.Execution, args []string) string {
	text := strings.Join(args, " ")
	mask, err := d.masker(ctx, e)
	if err != nil {
		mask = redact.New(args)
	}
	return agentcli.Clip(agentcli.OneLine(mask.MaskString(text)), 500)
}

// checkClause evaluates the end of the command of a contract.
func (d *Dispatcher) checkClause(e *agented.Execution, x *agented.Expect, bundle string, exit agented.Exit) agented.Clause {
	c := agented.Clause{Name: "command"}
	took := exit.FinishedAt.Sub(exit.StartedAt).Round(100 * time.Millisecond)
	switch {
	case exit.Cause == agented.CauseLost, exit.Cause == agented.CauseShutdown:
		c.Text, c.Failed = "it was interrupted twice: "+exit.Detail, true
	case exit.Cause != agented.CauseExit:
		c.Text = "it was stopped: " + exit.Detail
	case exit.Signal != "":
		c.Text = "it was terminated by " + exit.Signal
	case exit.Code != nil && *exit.Code != 0:
		c.Text = fmt.Sprintf("it exited with code %d after %s", *exit.Code, took)
	default:
		c.Met, c.Text = true, fmt.Sprintf("it exited with code 0 after %s", took)
	}
	spec, err := shim.ReadSpec(bundle)
	if err == nil {
		c.Evidence, err = d.linesOf(e, spec.FirstSeq, exit.LastSeq)
	}
	if err != nil {
		d.o.Log.Warn("read the output of a check", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
	}
	return c
}

// linesOf returns the end of a range of lines of a log, as they are stored.
func (d *Dispatcher) linesOf(e *agented.Execution, first, last agented.Seq) (string, error) {
	r, err := runlog.OpenReader(d.o.Layout.Execution(e.ID))
	if err != nil {
		return "", err
	}
	defer r.Close()
	if err := r.SeekAfter(max(first-1, last-500)); err != nil {
		return "", err
	}
	var text []byte
	for {
		batch, err := r.Next(nil, 500, 4<<20)
		if err != nil {
			return "", err
		}
		if len(batch) == 0 {
			return contract.Tail(strings.TrimRight(string(text), "\n")), nil
		}
		for _, l := range batch {
			if l.Seq > last {
				continue
			}
			text = append(append(text, l.Content...), '\n')
			if extra := len(text) - 4*agented.MaxClauseEvidence; extra > 0 {
				text = append(text[:0], text[extra:]...)
			}
		}
	}
}
