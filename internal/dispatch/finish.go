package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/backoff"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/retention"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// finish classifies an ended attempt and records the result once. It retries while the store is
// unavailable. The exit record is in the bundle, so a crash loses nothing.
func (d *Dispatcher) finish(ctx context.Context, e *agented.Execution, exit agented.Exit) {
	end, result := d.classify(ctx, e, exit)
	if err := d.recordChanges(ctx, e, exit, &end.Attempt); err != nil {
		return // the server shuts down: the next one finds the exit record
	}
	if err := d.checkContract(ctx, e, &result, &end); err != nil {
		return // the same
	}
	end.Repairs = repairs(e, &end)
	if err := d.propose(ctx, e, &end); err != nil {
		return
	}
	d.end(ctx, e, exit, end)
}

// end records the result of an attempt once.
func (d *Dispatcher) end(ctx context.Context, e *agented.Execution, exit agented.Exit, end store.AttemptEnd) {
	var plan store.Plan
	for pause := (backoff.Backoff{Pause: 50 * time.Millisecond, Longest: 5 * time.Second}); ; {
		var err error
		plan, err = d.o.DB.EndAttempt(context.WithoutCancel(ctx), end, e.Lease, end.Attempt.FinishedAt)
		if err == nil {
			break
		}
		if errors.Is(err, agented.Conflict) {
			// A server with a newer lease has recorded the end; its decision is final.
			d.o.Log.Warn("finish", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
			return
		}
		d.o.Log.Error("finish", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.Pause.String())
		if pause.Wait(ctx) != nil {
			return
		}
	}
	if err := d.o.Costs.Reload(context.WithoutCancel(ctx)); err != nil {
		d.o.Log.Warn("check the budgets", "err", err)
	}
	took := end.Attempt.FinishedAt.Sub(end.Attempt.StartedAt)
	d.o.Log.Info("attempt ended", "execution", e.ID, "attempt", e.AttemptNo, "trigger", e.Trigger,
		"status", end.Attempt.State, "cause", exit.Cause, "duration_ms", took.Milliseconds())
	if d.o.Observe.AttemptEnded != nil {
		d.o.Observe.AttemptEnded(end.Attempt.Backend, end.Attempt.State, took)
	}
	if len(end.Publications) > 0 && d.o.Observe.Proposed != nil {
		d.o.Observe.Proposed()
	}
	if plan.Next == agented.StatePending {
		// The log is free: a new claim waits until this is done.
		d.systemLine(e, fmt.Sprintf("attempt %d ended: %s", e.AttemptNo, plan.Reason))
		d.o.Log.Info("another attempt follows", "execution", e.ID, "class", end.Attempt.Class, "reason", plan.Reason)
		if e.Source != agented.SourceTurn { // its conversation still reads; cleanUpLoop comes later
			d.cleanUpAttempts(context.WithoutCancel(ctx), e.ID, e.AttemptNo)
		}
	} else if e.Source != agented.SourceTurn { // its conversation cleans up
		d.finishing.Go(func() { d.CleanUp(context.WithoutCancel(ctx), e.ID) })
	}
}

// readResult reads the log of an ended attempt. The meter is nil if the backend is unknown.
func (d *Dispatcher) readResult(ctx context.Context, e *agented.Execution, exit agented.Exit, text *printed.Text) (agented.Result, *agentcli.Meter) {
	name := backendOf(e)
	cli, ok := registry.ByName(name)
	if !ok {
		return agented.Result{Outcome: agented.OutcomeFailed, Reason: "this version of Agented has no backend " + name}, nil
	}
	reader, meter := agentcli.NewReader(cli), d.o.Costs.NewMeter(specOf(e).Model)
	err := d.read(ctx, e, exit.LastSeq, text, cli, func(events []agentcli.Event) {
		reader.Add(events)
		meter.Add(events)
	})
	if err != nil {
		d.o.Log.Error("read the run log", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
	}
	result := reader.Result(itsOwnEnd(exit), d.now().In(d.clockOf(e)))
	if exit.Cause == agented.CauseLingered {
		result.Reason = strings.TrimPrefix(result.Reason+"; "+exit.Detail, "; ")
	}
	if !result.Usage.Known() || meter.Ahead() {
		result.Usage = meter.Usage() // the attempt was interrupted
	}
	if exit.Class != "" {
		result.Class, result.Outcome = exit.Class, exit.Class.Outcome()
	}
	return result, meter
}

// versionAt returns the version of the CLI of an ended attempt, or "" if it is unknown.
func (d *Dispatcher) versionAt(e *agented.Execution, r *agented.Result) string {
	if r.CLIVersion != "" {
		return r.CLIVersion
	}
	if a := current(e); a != nil && a.CLIVersion != "" {
		return a.CLIVersion
	}
	return d.knownVersion(e)
}

// classify derives the result of an attempt from its exit and its log.
func (d *Dispatcher) classify(ctx context.Context, e *agented.Execution, exit agented.Exit) (store.AttemptEnd, agented.Result) {
	name := backendOf(e)
	text := d.Printed(e)
	defer text.Close()
	result, meter := d.readResult(ctx, e, exit, text)
	d.brokerLimit(e, &result)
	last := exit.LastSeq
	if n, err := d.lastSeq(e); err == nil {
		last = max(last, n) // include the server's own lines
	}
	at := exit.FinishedAt
	if at.IsZero() {
		at = d.now()
	}
	end := store.AttemptEnd{
		Attempt: agented.Attempt{
			Execution: e.ID, Number: e.AttemptNo, Backend: name, CLIVersion: d.versionAt(e, &result), Sandbox: d.ranAt(e, exit),
			State: result.Outcome.State(), ExitCode: exit.Code, Signal: exit.Signal, Reason: result.Reason,
			Usage: result.Usage, SessionID: result.SessionID,
			StartedAt: exit.StartedAt, FinishedAt: at.UTC().Truncate(time.Microsecond),
		},
		Next:    result.Outcome.State(),
		Reason:  result.Reason,
		Result:  result.Text,
		LastSeq: last,
		Retry:   &e.Snapshot.Retry,
		Limit:   result.Limit,
		Jitter:  rand.Float64(),
		Now:     d.now(),
		Worked: result.Outcome == agented.OutcomeSuccess || exit.Cause == agented.CauseTimeout ||
			result.Class == agented.ClassAgentFailure && exit.Cause != agented.CauseNoStart && !result.SessionGone,
		NotStarted: exit.Cause == agented.CauseNoStart,
	}
	end.Price = func(_, model string, u agented.Usage) (float64, bool) { return d.o.Costs.Price(model, u) }
	if meter != nil {
		model := meter.Model()
		end.Model = text.Mask(model)
		end.Price = func(_, of string, u agented.Usage) (float64, bool) {
			if of == end.Model {
				of = model // a mask has no price
			}
			return d.o.Costs.Price(of, u)
		}
	}
	end.Attempt.Class, end.Attempt.Evidence = classOf(result), result.Limit.Evidence
	end.Attempt.SessionGone = result.SessionGone
	end.Attempt.Broker = d.brokerUse(e, text.Mask)
	if end.Next != agented.StateSuccess {
		end.Error = result.Reason
	}
	if meter != nil {
		d.o.Costs.Judge(e, itsOwnEnd(exit), &result, &end, meter)
	}
	maskEnd(text.Mask, &end)
	return end, result
}

// itsOwnEnd converts the exit of a CLI that was terminated because it did not exit after its
// final result. The result counts as after exit code 0.
func itsOwnEnd(exit agented.Exit) agented.Exit {
	if exit.Cause == agented.CauseLingered {
		exit.Cause, exit.Code, exit.Signal = agented.CauseExit, new(int), ""
	}
	return exit
}

// classOf returns the class of a result, and derives it if the reader did not set one.
func classOf(r agented.Result) agented.Class {
	switch {
	case r.Class != "":
		return r.Class
	case r.Outcome == agented.OutcomeFailed:
		return agented.ClassAgentFailure
	case r.Outcome == agented.OutcomeInterrupted:
		return agented.ClassInterrupted
	}
	return ""
}

// cleanUpAttempts removes the raw output of earlier attempts of an execution that continues.
func (d *Dispatcher) cleanUpAttempts(ctx context.Context, id agented.ExecutionID, last int) {
	var err error
	for n := 1; n <= last; n++ {
		err = errors.Join(err, shim.RemoveRaw(d.o.Layout.Attempt(id, n)), shim.RemoveRaw(d.o.Layout.Check(id, n)))
	}
	if err == nil {
		err = d.o.DB.AttemptCleanupDone(ctx, id)
	}
	if err != nil {
		d.o.Log.Error("clean up files", "execution", id, "err", err)
	}
}

// knownVersion returns the version of the backend's CLI if the check that began with the attempt
// has completed.
func (d *Dispatcher) knownVersion(e *agented.Execution) string {
	spec, err := shim.ReadSpec(d.o.Layout.Attempt(e.ID, e.AttemptNo))
	if err != nil || backendOf(e) == agented.BackendCommand {
		return ""
	}
	return d.versions.Cached(spec.Path)
}

// read passes the events of the attempt's lines to add, in the order in which they were printed,
// parts joined. Lines after last are not read.
func (d *Dispatcher) read(ctx context.Context, e *agented.Execution, last agented.Seq, text *printed.Text, cli agentcli.CLI, add func([]agentcli.Event)) error {
	line := func(stream agented.Stream, content []byte) { add(agentcli.Decode(cli, stream, content)) }
	r, err := runlog.OpenReader(d.o.Layout.Execution(e.ID))
	if errors.Is(err, agented.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if spec, err := shim.ReadSpec(d.o.Layout.Attempt(e.ID, e.AttemptNo)); err == nil && spec.FirstSeq > 1 {
		if err := r.SeekAfter(spec.FirstSeq - 1); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	open := runlog.Joiner{Max: agentcli.MaxLine}
	var batch []agented.LogLine
	for {
		batch, err = r.Next(batch[:0], 1000, 4<<20)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		text.Refresh(e.AttemptNo)
		for _, l := range batch {
			if l.Attempt != e.AttemptNo || l.Stream == agented.System || last > 0 && l.Seq > last {
				continue
			}
			if whole, ok := open.Add(l.Part, l.Stream, text.Line(ctx, &l)); ok {
				line(l.Stream, whole)
			}
		}
	}
	for stream, rest := range open.Incomplete() {
		line(stream, rest)
	}
	return nil
}

// CleanUp removes data that a final execution no longer needs: unmasked raw output, temporary files,
// and the uncompressed log. It can be repeated.
func (d *Dispatcher) CleanUp(ctx context.Context, id agented.ExecutionID) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	e, err := d.o.DB.Execution(ctx, id)
	if err != nil {
		d.o.Log.Error("clean up files", "execution", id, "err", err)
		return
	}
	if !e.State.Final() {
		last := e.AttemptNo
		if e.State == agented.StateRunning {
			last--
		}
		d.cleanUpAttempts(ctx, id, last)
		return
	}
	for n := 1; n <= e.AttemptNo; n++ {
		err = errors.Join(err, shim.RemoveRaw(d.o.Layout.Attempt(id, n)), shim.RemoveRaw(d.o.Layout.Check(id, n)))
	}
	if err := remove.All(d.o.Layout.Temp(id)); err != nil {
		// Retention retries it when it removes the folder of the execution.
		d.o.Log.Warn("the temporary folder of an execution could not be removed", "execution", id, "err", err)
	}
	err = errors.Join(err, changes.RemoveStart(d.recordsOf(id)))
	if e.LastSeq > 0 {
		err = errors.Join(err, runlog.Seal(d.o.Layout.Execution(id)))
	}
	if err == nil {
		err = d.o.DB.CleanupDoneWithBytes(ctx, id, retention.FolderBytes(d.o.Layout.Execution(id)))
	}
	if err != nil {
		d.o.Log.Error("clean up files", "execution", id, "err", err)
	}
}

// cleanUpLoop cleans up executions that an earlier server left, or whose cleanup failed.
func (d *Dispatcher) cleanUpLoop(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		ids, err := d.o.DB.PendingCleanups(ctx, 1000)
		if err != nil && ctx.Err() == nil {
			d.o.Log.Error("clean up files", "err", err)
		}
		for _, id := range ids {
			if ctx.Err() != nil {
				return errDraining
			}
			d.CleanUp(ctx, id)
		}
		select {
		case <-ctx.Done():
			return errDraining
		case <-tick.C:
		}
	}
}
