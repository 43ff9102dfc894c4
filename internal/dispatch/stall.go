package dispatch

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// Parameters of the stall detector.
const (
	stallCheckInterval = 30 * time.Second
	maxRecords         = 64 // maximum number of records read at once; earlier ones are skipped
)

// watchStall starts the stall detector for a running attempt. The returned function stops it and
// must be called.
func (d *Dispatcher) watchStall(ctx context.Context, e *agented.Execution, h *shim.Handle) (end func()) {
	name := e.Backend
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo && a.Backend != "" {
			name = a.Backend
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	d.attempts.Go(func() {
		d.detectStall(ctx, e, name, h.Stop, func(ctx context.Context) bool { return d.isPaused(ctx, e.ID) })
	})
	return cancel
}

// detectStall terminates an attempt whose CLI waits on a limit, an overload or a network and makes
// no progress, to release its slot. What it waited on is read from its log when it is finished.
// detectStall returns when ctx ends, which must be no later than the end of the attempt.
//
// A paused attempt is not stalled. All state is derived from the log, so a new server continues
// where the old one stopped. Two consecutive checks must agree; otherwise every attempt would
// appear stalled after the machine was asleep.
func (d *Dispatcher) detectStall(ctx context.Context, e *agented.Execution, name string, stop func(agented.Cause) error, still func(context.Context) bool) {
	cli, ok := registry.ByName(name)
	if !ok {
		return
	}
	began := d.now()
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo && !a.StartedAt.IsZero() {
			began = a.StartedAt
		}
	}
	w := watch{dir: d.o.Layout.Execution(e.ID), attempt: e.AttemptNo, cli: cli, detector: agentcli.NewStallDetector(cli, began), text: d.Printed(e)}
	if w.detector == nil {
		return
	}
	defer w.text.Close()
	log := d.o.Log.With("execution", e.ID, "attempt", e.AttemptNo)
	tick := time.NewTicker(stallCheckInterval)
	defer tick.Stop()
	var finished <-chan time.Time // fires when the grace of a CLI with a final result ends
	for found, paused := false, false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-finished:
		}
		finished = nil
		if err := w.readNew(ctx); err != nil {
			log.Debug("read the run log", "err", err)
			found = false
			continue
		}
		stuck, is := w.detector.Stalled(d.now())
		if is || paused || w.detector.Finished(d.now()) {
			if paused = still(ctx); paused {
				w.detector.ExcludeUntil(d.now())
				is = false
			}
		}
		if due := w.detector.FinishedBy(); w.detector.Finished(d.now()) {
			log.Info("the CLI has printed its final result and does not exit: stopping the attempt")
			err := stop(agented.CauseLingered)
			if err == nil {
				return
			}
			log.Warn("stop", "err", err) // the next check retries
			continue
		} else if wait := due.Sub(d.now()); !due.IsZero() && wait < stallCheckInterval {
			finished = time.After(wait)
		}
		if is && found {
			log.Info("the CLI is stalled: stopping the attempt", "class", stuck.Class, "why", w.text.Mask(stuck.Why))
			if err := stop(agented.CauseStalled); err != nil {
				log.Warn("stop", "err", err) // the next check retries
				continue
			}
			return
		}
		found = is
	}
}

// isPaused reports whether a running execution is paused. It returns true if that is unknown.
func (d *Dispatcher) isPaused(ctx context.Context, id agented.ExecutionID) bool {
	e, err := d.o.DB.Execution(ctx, id)
	return err != nil || e.Pause != nil
}

// watch is the read position in the log of one attempt.
type watch struct {
	dir      string
	attempt  int
	cli      agentcli.CLI
	detector *agentcli.StallDetector
	text     *printed.Text
	last     agented.Seq
}

// readNew passes the lines printed since the last call to the stall detector.
func (w *watch) readNew(ctx context.Context) error {
	r, err := runlog.OpenReader(w.dir)
	if errors.Is(err, agented.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	end, err := r.LastSeq()
	if err != nil || end <= w.last {
		return err
	}
	from := max(w.last, end-maxRecords)
	skipped := from > w.last
	if err := r.SeekAfter(from); err != nil {
		return err
	}
	var batch []agented.LogLine
	for w.last < end {
		if batch, err = r.Next(batch[:0], maxRecords, 1<<20); err != nil {
			return err
		}
		if len(batch) == 0 {
			return nil
		}
		w.text.Refresh(w.attempt)
		for _, l := range batch {
			w.last = l.Seq
			if l.Attempt != w.attempt || l.Stream == agented.System {
				continue
			}
			l.Content = w.text.Line(ctx, &l)
			if skipped {
				w.detector.Skip(l.At)
				skipped = false
			}
			switch l.Part {
			case agented.PartWhole:
				w.detector.Add(l.At, agentcli.Decode(w.cli, l.Stream, l.Content))
			case agented.PartFirst: // a line of that size is no message about waiting
				w.detector.LongLine(l.At, l.Stream, l.Content[:min(len(l.Content), 512)])
			}
		}
	}
	return nil
}

// clockOf returns the zone of clock times in the CLI's output: the execution's own TZ, the
// server's, or the machine's.
func (d *Dispatcher) clockOf(e *agented.Execution) *time.Location {
	name := ""
	if value, own := e.Snapshot.Env["TZ"]; own && value != nil {
		if env, err := d.openEnv(map[string]*string{"TZ": value}, nil); err == nil {
			name = *env["TZ"]
		}
	} else if d.o.Lookup != nil {
		name, _ = d.o.Lookup("TZ")
	}
	if name = strings.TrimPrefix(name, ":"); name == "" {
		return time.Local
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return time.UTC // as the C library does for an unknown zone
	}
	return zone
}
