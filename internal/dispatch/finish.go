package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// finish reads what an ended attempt means and writes it down, once. It goes on
// trying while the store cannot take it: the end is in the bundle, so a server
// that dies here loses nothing either.
func (d *Dispatcher) finish(ctx context.Context, e *agented.Execution, exit agented.Exit) {
	d.end(ctx, e, exit, d.classify(e, exit))
}

// end writes down what an attempt's end means, once.
func (d *Dispatcher) end(ctx context.Context, e *agented.Execution, exit agented.Exit, end store.AttemptEnd) {
	var plan store.Plan
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		var err error
		plan, err = d.o.DB.EndAttempt(context.WithoutCancel(ctx), end, e.Lease, end.Attempt.FinishedAt)
		if err == nil {
			break
		}
		if errors.Is(err, agented.Conflict) {
			// Somebody with a newer lease decided. Their word stands.
			d.o.Log.Warn("finish", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
			return
		}
		d.o.Log.Error("finish", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	d.spentSome(context.WithoutCancel(ctx))
	took := end.Attempt.FinishedAt.Sub(end.Attempt.StartedAt)
	d.o.Log.Info("attempt ended", "execution", e.ID, "attempt", e.AttemptNo, "trigger", e.Trigger,
		"status", end.Attempt.State, "cause", exit.Cause, "duration_ms", took.Milliseconds())
	if d.o.Observe.AttemptEnded != nil {
		d.o.Observe.AttemptEnded(end.Attempt.Backend, end.Attempt.State, took)
	}
	if plan.Next == agented.StatePending {
		// Nobody else has the log: a claim that came meanwhile waits for this.
		d.systemLine(e, fmt.Sprintf("attempt %d ended: %s", e.AttemptNo, plan.Reason))
		d.o.Log.Info("another attempt follows", "execution", e.ID, "class", end.Attempt.Class, "reason", plan.Reason)
		d.tidyAttempts(context.WithoutCancel(ctx), e.ID, e.AttemptNo)
	} else {
		d.finishing.Go(func() { d.tidy(context.WithoutCancel(ctx), e.ID) })
	}
}

// classify turns an exit and the log before it into what is written down.
func (d *Dispatcher) classify(e *agented.Execution, exit agented.Exit) store.AttemptEnd {
	name := backendOf(e)
	result := agented.Result{Outcome: agented.OutcomeFailed, Reason: "this version of Agented has no backend " + name}
	var meter *backend.Meter
	if b, ok := backend.ByName(name); ok {
		reader := b.Reader()
		meter = backend.NewMeter(name, specOf(e).Model, d.o.Prices)
		if err := d.read(e, metered{reader, meter}); err != nil {
			d.o.Log.Error("read the run log", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
		}
		result = reader.Result(exit, d.now().In(d.clockOf(e)))
		if !result.Usage.Known() {
			result.Usage = meter.Usage() // it was cut short
		}
		if exit.Class != "" {
			result.Class, result.Outcome = exit.Class, exit.Class.Outcome()
		}
	}
	last := exit.LastSeq
	if n, err := d.lastSeq(e); err == nil {
		last = max(last, n) // lines of ours count too
	}
	version := result.CLIVersion
	if a := current(e); a != nil && version == "" {
		version = a.CLIVersion
	}
	if version == "" {
		version = d.knownVersion(e)
	}
	at := exit.FinishedAt
	if at.IsZero() {
		at = d.now()
	}
	end := store.AttemptEnd{
		Attempt: agented.Attempt{
			Execution: e.ID, Number: e.AttemptNo, Backend: name, CLIVersion: version,
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
	if end.Price = d.price; meter != nil {
		end.Model = meter.Model()
	}
	end.Attempt.Class, end.Attempt.Evidence = classOf(result), result.Limit.Evidence
	end.Attempt.SessionGone = result.SessionGone
	if end.Next != agented.StateSuccess {
		end.Error = result.Reason
	}
	return end
}

// classOf is whose doing an end was, also when a reader does not say so.
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

// tidyAttempts removes the raw output of the attempts of an execution that goes
// on.
func (d *Dispatcher) tidyAttempts(ctx context.Context, id agented.ExecutionID, last int) {
	var err error
	for n := 1; n <= last; n++ {
		err = errors.Join(err, shim.RemoveRaw(d.o.Layout.Attempt(id, n)))
	}
	if err == nil {
		err = d.o.DB.TidiedSoFar(ctx, id)
	}
	if err != nil {
		d.o.Log.Error("tidy", "execution", id, "err", err)
	}
}

// knownVersion is the version of the backend's CLI if a question asked at the
// attempt's start was answered meanwhile.
func (d *Dispatcher) knownVersion(e *agented.Execution) string {
	spec, err := shim.ReadSpec(d.o.Layout.Attempt(e.ID, e.AttemptNo))
	if err != nil || backendOf(e) == agented.BackendCommand {
		return ""
	}
	return d.versions.Cached(spec.Path)
}

// maxJoined bounds a line that is put together from its parts for a reader. An
// agent's answer of 5 MB is one line; what is longer than this reaches the
// reader cut off, and the log has it whole.
const maxJoined = 64 << 20

// read gives the attempt's lines to a reader, parts joined.
func (d *Dispatcher) read(e *agented.Execution, to backend.Reader) error {
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
	open := map[agented.Stream]*bytes.Buffer{} // lines of which the end has not come yet
	var batch []agented.LogLine
	for {
		batch, err = r.Next(batch[:0], 1000, 4<<20)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		for _, l := range batch {
			if l.Attempt != e.AttemptNo || l.Stream == agented.System {
				continue
			}
			if l.Part == agented.PartWhole {
				to.Line(l.Stream, l.Content)
				continue
			}
			b := open[l.Stream]
			if b == nil {
				b = new(bytes.Buffer)
				open[l.Stream] = b
			}
			if l.Part == agented.PartFirst {
				b.Reset()
			}
			b.Write(l.Content[:min(len(l.Content), maxJoined-min(maxJoined, b.Len()))])
			if l.Part == agented.PartLast {
				to.Line(l.Stream, b.Bytes())
				delete(open, l.Stream)
			}
		}
	}
	for stream, b := range open {
		to.Line(stream, b.Bytes())
	}
	return nil
}

// tidy removes what a final execution does not need any more: the raw output,
// which is not masked, temporary files, and the room that an uncompressed log
// takes. It may be
// repeated.
func (d *Dispatcher) tidy(ctx context.Context, id agented.ExecutionID) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	e, err := d.o.DB.Execution(ctx, id)
	if err != nil {
		d.o.Log.Error("tidy", "execution", id, "err", err)
		return
	}
	if !e.State.Final() {
		last := e.AttemptNo
		if e.State == agented.StateRunning {
			last--
		}
		d.tidyAttempts(ctx, id, last)
		return
	}
	for n := 1; n <= e.AttemptNo; n++ {
		err = errors.Join(err, shim.RemoveRaw(d.o.Layout.Attempt(id, n)))
	}
	err = errors.Join(err, os.RemoveAll(d.o.Layout.Temp(id)))
	if e.LastSeq > 0 {
		err = errors.Join(err, runlog.Seal(d.o.Layout.Execution(id)))
	}
	if err == nil {
		err = d.o.DB.TidiedAs(ctx, id, folderBytes(d.o.Layout.Execution(id)))
	}
	if err != nil {
		d.o.Log.Error("tidy", "execution", id, "err", err)
	}
}

// tidyLoop tidies what an earlier server left behind, or what failed.
func (d *Dispatcher) tidyLoop(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		ids, err := d.o.DB.Untidied(ctx, 1000)
		if err != nil && ctx.Err() == nil {
			d.o.Log.Error("tidy", "err", err)
		}
		for _, id := range ids {
			if ctx.Err() != nil {
				return errDraining
			}
			d.tidy(ctx, id)
		}
		select {
		case <-ctx.Done():
			return errDraining
		case <-tick.C:
		}
	}
}
