package dispatch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// Retention says for how long what is kept. Zero is for ever, or without limit.
type Retention struct {
	Executions    time.Duration // after their end
	MaxExecutions int64
	Logs          time.Duration // folders of executions, after their end
	MaxLogBytes   int64
	Bodies        time.Duration // of deliveries, and refused calls
	Deliveries    time.Duration
	Ticks         time.Duration
	Audit         time.Duration
	Keys          time.Duration // of idempotency
}

// limits are those of the moment.
func (r Retention) limits(now time.Time) store.RetentionLimits {
	before := func(d time.Duration) time.Time {
		if d <= 0 {
			return time.Time{}
		}
		return now.Add(-d)
	}
	return store.RetentionLimits{
		ExecutionsBefore: before(r.Executions), ExecutionsMax: r.MaxExecutions,
		LogsBefore: before(r.Logs), BytesMax: r.MaxLogBytes,
		DeliveriesBefore: before(r.Deliveries), TicksBefore: before(r.Ticks), AuditBefore: before(r.Audit), KeysBefore: before(r.Keys),
	}
}

const (
	pruneEvery  = time.Hour
	prunePause  = 20 * time.Millisecond // between two steps, so that others write in between
	removeStep  = 50                    // folders at once
	measureStep = 500
)

// retention is what the settings say at the moment.
func (d *Dispatcher) retention() Retention {
	if d.o.Retention == nil {
		return Retention{Bodies: bodiesFor}
	}
	return d.o.Retention()
}

// pruneLoop keeps what is stored within its limits: at the start, every hour, and
// when much has come.
func (d *Dispatcher) pruneLoop(ctx context.Context) error {
	if err := d.measure(ctx); err != nil && ctx.Err() == nil {
		d.o.Log.Error("measure the folders of executions", "err", err)
	}
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		got, err := d.Prune(ctx)
		switch {
		case ctx.Err() != nil:
			return errDraining
		case errors.Is(err, agented.Conflict):
			d.o.Log.Info("retention waits for the backup that is being taken")
		case err != nil:
			d.o.Log.Error("retention", "err", err)
		}
		if got.Rows() > 0 {
			d.o.Log.Info("retention", "executions", got.Executions, "logs", got.Logs, "bytes", got.Bytes,
				"deliveries", got.Deliveries, "ticks", got.Ticks, "audit", got.Audit, "idempotency_keys", got.IdempotencyKeys)
		}
		select {
		case <-ctx.Done():
			return errDraining
		case <-tick.C:
		case <-d.prune:
		}
	}
}

// Prune takes now what lies beyond the limits, in small steps, and returns what
// it was. It is a Conflict while a backup copies the files.
func (d *Dispatcher) Prune(ctx context.Context) (store.Expired, error) {
	d.pruning.Lock()
	defer d.pruning.Unlock()
	var sum store.Expired
	r := d.retention()
	d.bodies.Store(0)
	n, err := d.o.DB.PruneDeliveries(ctx, store.DeliveryLimits{Before: d.now().Add(-max(r.Bodies, 24*time.Hour)), MaxBytes: bodiesBytes, MaxRows: refusedRows})
	if n > 0 {
		d.o.Log.Info("bodies of old deliveries removed", "count", n)
	}
	for err == nil {
		var got store.Expired
		if got, err = d.o.DB.Expire(ctx, r.limits(d.now()), d.now()); err != nil || got.Rows() == 0 {
			break
		}
		sum.Add(got)
		select {
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-time.After(prunePause):
		}
	}
	gone, removeErr := d.removeFiles(ctx)
	if sum.Rows()+gone > 0 {
		given, giveErr := d.o.DB.GiveBack(ctx)
		if given > 0 {
			d.o.Log.Info("the database gave room back", "bytes", given)
		}
		err = errors.Join(err, giveErr)
	}
	return sum, errors.Join(err, removeErr)
}

// Expirable says what Prune would take.
func (d *Dispatcher) Expirable(ctx context.Context) (store.Expired, error) {
	return d.o.DB.Expirable(ctx, d.retention().limits(d.now()))
}

// removeFiles removes the folders that the database has given up, those of before
// a crash among them.
func (d *Dispatcher) removeFiles(ctx context.Context) (n int64, err error) {
	for {
		ids, err := d.o.DB.Removals(ctx, removeStep)
		if err != nil || len(ids) == 0 {
			return n, err
		}
		if err := d.removeSome(ctx, ids); err != nil {
			return n, err
		}
		n += int64(len(ids))
	}
}

func (d *Dispatcher) removeSome(ctx context.Context, ids []agented.ExecutionID) error {
	if d.o.Hold != nil {
		held, err := d.o.Hold()
		if err != nil {
			return err
		}
		defer held.Close()
	}
	for _, id := range ids {
		if !agented.ValidID("exec", string(id)) {
			return agented.Errorf(agented.Internal, "the database wants the folder of %q removed, which is no execution", id)
		}
		dir := d.o.Layout.Execution(id)
		if err := d.unused(dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return d.o.DB.Removed(ctx, ids)
}

// unused makes sure that no shim lives in the folder. The database would not have
// given it up; to remove what somebody works in is worth a second look.
func (d *Dispatcher) unused(dir string) error {
	bundles, err := filepath.Glob(filepath.Join(dir, "attempt-*"))
	for _, b := range bundles {
		facts, err := shim.Inspect(b)
		if err != nil {
			return err
		}
		if shim.Decide(facts) == shim.Running { // one that has its exit record may hold the lock a moment longer
			return agented.Errorf(agented.Conflict, "%s is in use although its execution has ended", b)
		}
	}
	return err
}

// measure notes what the folders of executions take that ended before anybody
// measured them.
func (d *Dispatcher) measure(ctx context.Context) error {
	for after := agented.ExecutionID(""); ; {
		ids, err := d.o.DB.Unmeasured(ctx, after, measureStep)
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if err := d.o.DB.Measured(ctx, id, folderBytes(d.o.Layout.Execution(id))); err != nil {
				return err
			}
			after = id
		}
	}
}

// folderBytes is what the files below a folder take on the disk. What cannot be
// looked at is not counted.
func folderBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			if info, err := e.Info(); err == nil {
				n += onDisk(info)
			}
		}
		return nil
	})
	return n
}
