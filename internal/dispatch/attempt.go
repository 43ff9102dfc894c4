package dispatch

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backoff"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/runlog"
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
	received, err := d.receiveSecrets(ctx, e)
	if err == nil && !d.checkOut(ctx, e, w, received) {
		return
	}
	var ready *prepared
	if err == nil {
		ready, err = d.prepare(ctx, e, received)
	}
	if ready != nil {
		defer ready.private.Broker.Close() // the shim has its own copy
	}
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
	d.noteTree(ctx, e, w)
	if ctx.Err() != nil {
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
		a.CLIVersion, a.Sandbox = ready.version, ready.level
	}
	d.attach(e.ID, w, h)
	log.Info("attempt started", "backend", backendOf(e), "cli_version", ready.version, "sandbox", ready.level.Level)
	noted := d.noteSoon(ctx, e, ready.version, ready.level, began)
	d.follow(ctx, e, h, noted)
}

// noteAfter is how long an attempt runs before its start is recorded. Shorter attempts record
// start and end together, and the start of an attempt is not delayed by a write.
const noteAfter = 10 * time.Millisecond

// noteSoon records that the attempt is running, unless the returned function is called before.
// After that function has returned, no write is in progress.
func (d *Dispatcher) noteSoon(ctx context.Context, e *agented.Execution, version string, level agented.Isolation, at time.Time) (enough func()) {
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
func (d *Dispatcher) noteStart(ctx context.Context, e *agented.Execution, version string, level agented.Isolation, at time.Time) {
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

// watchCost starts watching the cost of a running attempt. The returned function stops it and must
// be called.
func (d *Dispatcher) watchCost(ctx context.Context, e *agented.Execution, h *shim.Handle) (end func()) {
	name := backendOf(e)
	if name == agented.BackendCommand {
		return func() {}
	}
	d.o.Costs.Begin(e)
	ctx, cancel := context.WithCancel(ctx)
	d.attempts.Go(func() {
		d.o.Costs.Watch(ctx, costs.Attempt{
			Execution: e, Backend: name, Model: specOf(e).Model, Text: d.Printed(e),
			Pause: func(ctx context.Context, p agented.Pause) error {
				p.Until = p.At.Add(d.pauseFor())
				_, err := d.pauseHere(ctx, e, h, p)
				return err
			},
		})
	})
	return cancel
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

// openEnv decrypts the values of a trigger's variables, and replaces references to named secrets
// with their values.
func (d *Dispatcher) openEnv(sealed map[string]*string, received map[string]string) (map[string]*string, error) {
	if len(sealed) == 0 {
		return sealed, nil
	}
	out := make(map[string]*string, len(sealed))
	for name, value := range sealed {
		if value == nil {
			out[name] = nil
			continue
		}
		if secret, ref := agented.RefersTo(*value); ref {
			text, ok := received[secret]
			if !ok {
				return nil, missingSecret(secret)
			}
			value = &text
		} else if d.o.OpenEnv != nil {
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
	named, err := d.receivedByAll(ctx, e)
	if err != nil {
		return nil, err
	}
	out = append(out, named...)
	env, err := d.openEnv(ownValues(e.Snapshot.Env), nil)
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
