package dispatch

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// How a running attempt's log is looked at for a CLI that waits for good.
const (
	lookEvery = 30 * time.Second
	lookBack  = 64 // records at most that are read at one look; what lies before is skipped
)

// watched begins to watch a running attempt for a CLI that waits for good. What
// it returns ends that, and must be called.
func (d *Dispatcher) watched(ctx context.Context, e *agented.Execution, h *shim.Handle) (end func()) {
	name := e.Backend
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo && a.Backend != "" {
			name = a.Backend
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	d.attempts.Go(func() {
		d.watchPulse(ctx, e, name, h.Stop, func(ctx context.Context) bool { return d.standsStill(ctx, e.ID) })
	})
	return cancel
}

// watchPulse ends an attempt whose CLI waits on a limit, an overload or a
// network and does not get on, so that its slot is free: what it waited on is
// read from its log when it is finished. It returns when ctx ends, which must
// be no later than the attempt does.
//
// An attempt that stands still on somebody's wish waits on nobody.
//
// Nothing is kept that a log does not have, so that a new server goes on where
// the old one was. Two looks must agree, or a machine that was asleep would
// find that everything has waited for hours.
func (d *Dispatcher) watchPulse(ctx context.Context, e *agented.Execution, name string, stop func(agented.Cause) error, still func(context.Context) bool) {
	b, ok := backend.ByName(name)
	if !ok {
		return
	}
	began := d.now()
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo && !a.StartedAt.IsZero() {
			began = a.StartedAt
		}
	}
	w := watch{dir: d.o.Layout.Execution(e.ID), attempt: e.AttemptNo, pulse: b.Pulse(began)}
	if w.pulse == nil {
		return
	}
	log := d.o.Log.With("execution", e.ID, "attempt", e.AttemptNo)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for found, paused := false, false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.look(); err != nil {
			log.Debug("look at the run log", "err", err)
			found = false
			continue
		}
		stuck, is := w.pulse.Stuck(d.now())
		if is || paused {
			if paused = still(ctx); paused {
				w.pulse.Rest(d.now())
				is = false
			}
		}
		if is && found {
			log.Info("attempt waits for good: ending it", "class", stuck.Class, "why", stuck.Why)
			if err := stop(agented.CauseStuck); err != nil {
				log.Warn("stop", "err", err) // the next look tries again
				continue
			}
			return
		}
		found = is
	}
}

// standsStill reports whether a running execution was paused. When that cannot
// be told it is taken to be.
func (d *Dispatcher) standsStill(ctx context.Context, id agented.ExecutionID) bool {
	e, err := d.o.DB.Execution(ctx, id)
	return err != nil || e.Pause != nil
}

// watch is how far the log of one attempt has been looked at.
type watch struct {
	dir     string
	attempt int
	pulse   *backend.Pulse
	last    agented.Seq
}

// look gives the pulse what was printed since the last look.
func (w *watch) look() error {
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
	from := max(w.last, end-lookBack)
	skipped := from > w.last
	if err := r.SeekAfter(from); err != nil {
		return err
	}
	var batch []agented.LogLine
	for w.last < end {
		if batch, err = r.Next(batch[:0], lookBack, 1<<20); err != nil {
			return err
		}
		if len(batch) == 0 {
			return nil
		}
		for _, l := range batch {
			w.last = l.Seq
			if l.Attempt != w.attempt || l.Stream == agented.System {
				continue
			}
			if skipped {
				w.pulse.Skip(l.At)
				skipped = false
			}
			if l.Part != agented.PartWhole {
				w.pulse.Skip(l.At) // a line that long is no word about waiting
				continue
			}
			w.pulse.Line(l.At, l.Stream, l.Content)
		}
	}
	return nil
}

// clockOf is the zone that an execution's CLI prints clock times in: its own TZ,
// the server's, or the machine's.
func (d *Dispatcher) clockOf(e *agented.Execution) *time.Location {
	name := ""
	if value, own := e.Snapshot.Env["TZ"]; own && value != nil {
		if env, err := d.openEnv(map[string]*string{"TZ": value}); err == nil {
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
		return time.UTC // as the C library takes a zone that it does not know
	}
	return zone
}
