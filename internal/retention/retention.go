// Package retention removes what is beyond the retention limits: rows from the database first, then
// the folders that the rows gave up.
package retention

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Settings holds retention periods and limits. Zero means no limit.
type Settings struct {
	Executions    time.Duration // after the end of an execution
	MaxExecutions int64
	Logs          time.Duration // execution folders, after the end
	MaxLogBytes   int64
	Bodies        time.Duration // bodies of deliveries, and refused deliveries
	Deliveries    time.Duration
	Ticks         time.Duration
	Audit         time.Duration
	Keys          time.Duration // idempotency keys
}

// limits converts the periods to times before now.
func (r Settings) limits(now time.Time) store.RetentionLimits {
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
	prunePause  = 20 * time.Millisecond // between two steps, to let other writers proceed
	measureStep = 500
)

// Limits of deliveries.
const (
	bodiesFor   = 30 * 24 * time.Hour // how long bodies are kept
	bodiesBytes = 1 << 30             // total size of all stored bodies
	refusedRows = 10000               // number of refused and of duplicate deliveries that are kept, each
	pruneAfter  = 64 << 20            // bytes of new bodies that start pruning
)

// Options configures a Pruner.
type Options struct {
	DB       *store.DB
	Layout   agented.Layout
	Settings func() Settings           // if nil, everything except delivery bodies is kept
	Hold     func() (io.Closer, error) // locks the files against copying while they are removed; nil means no lock
	Now      func() time.Time          // nil means time.Now
	Log      *slog.Logger
}

// Pruner removes what is beyond the retention limits.
type Pruner struct {
	o              Options
	early          chan struct{} // signals that many delivery bodies were stored
	failedRemovals atomic.Int64  // folders that could not be removed at the last try
	bodies         atomic.Int64  // bytes of bodies since the last pruning
	pruning        sync.Mutex    // held while data is removed
}

// New returns a pruner. Run starts it.
func New(o Options) *Pruner {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Pruner{o: o, early: make(chan struct{}, 1)}
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (p *Pruner) now() time.Time { return p.o.Now().UTC().Truncate(time.Microsecond) }

// settings returns the current settings.
func (p *Pruner) settings() Settings {
	if p.o.Settings == nil {
		return Settings{Bodies: bodiesFor}
	}
	return p.o.Settings()
}

// BodyStored counts the bytes of a stored body, and starts pruning after pruneAfter bytes.
func (p *Pruner) BodyStored(bytes int) {
	if p.bodies.Add(int64(bytes)) > pruneAfter {
		select {
		case p.early <- struct{}{}:
		default:
		}
	}
}

// Run applies the retention limits at the start, every hour, and after many new bodies, until ctx
// is cancelled.
func (p *Pruner) Run(ctx context.Context) {
	if err := p.measure(ctx); err != nil && ctx.Err() == nil {
		p.o.Log.Error("measure the folders of executions", "err", err)
	}
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		got, err := p.Prune(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, agented.Conflict):
			p.o.Log.Info("retention waits for the backup in progress")
		case err != nil:
			p.o.Log.Error("retention", "err", err)
		}
		if got.Rows() > 0 {
			p.o.Log.Info("retention", "executions", got.Executions, "logs", got.Logs, "bytes", got.Bytes,
				"deliveries", got.Deliveries, "ticks", got.Ticks, "audit", got.Audit, "idempotency_keys", got.IdempotencyKeys)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.early:
		}
	}
}

// Prune removes data beyond the retention limits in small steps, and returns what it removed. It
// returns Conflict while a backup copies the files. A folder that cannot be removed is no error:
// see FailedRemovals.
func (p *Pruner) Prune(ctx context.Context) (store.Expired, error) {
	p.pruning.Lock()
	defer p.pruning.Unlock()
	var sum store.Expired
	r := p.settings()
	p.bodies.Store(0)
	n, err := p.o.DB.PruneDeliveries(ctx, store.DeliveryLimits{Before: p.now().Add(-max(r.Bodies, 24*time.Hour)), MaxBytes: bodiesBytes, MaxRows: refusedRows})
	if n > 0 {
		p.o.Log.Info("delivery bodies removed", "count", n)
	}
	for err == nil {
		var got store.Expired
		if got, err = p.o.DB.Expire(ctx, r.limits(p.now()), p.now()); err != nil || got.Rows() == 0 {
			break
		}
		sum.Add(got)
		select {
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-time.After(prunePause):
		}
	}
	gone, removeErr := p.removeFolders(ctx)
	if sum.Rows()+gone > 0 {
		given, giveErr := p.o.DB.Shrink(ctx)
		if given > 0 {
			p.o.Log.Info("the database file was shrunk", "bytes", given)
		}
		err = errors.Join(err, giveErr)
	}
	return sum, errors.Join(err, removeErr)
}

// Expirable returns what Prune would remove.
func (p *Pruner) Expirable(ctx context.Context) (store.Expired, error) {
	return p.o.DB.Expirable(ctx, p.settings().limits(p.now()))
}

// measure records the sizes of execution folders that ended before sizes were recorded.
func (p *Pruner) measure(ctx context.Context) error {
	for after := agented.ExecutionID(""); ; {
		ids, err := p.o.DB.Unmeasured(ctx, after, measureStep)
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if err := p.o.DB.RecordFolderBytes(ctx, id, FolderBytes(p.o.Layout.Execution(id))); err != nil {
				return err
			}
			after = id
		}
	}
}

// FolderBytes returns the disk usage of the files below a folder. Unreadable files are not
// counted.
func FolderBytes(dir string) (n int64) {
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

// onDisk returns the disk usage of a file in bytes.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
