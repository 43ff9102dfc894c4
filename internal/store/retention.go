package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// retentionStep is how many rows of a kind one transaction of retention takes,
// so that the writer is held for milliseconds.
const retentionStep = 50

// RetentionLimits say what is kept. A zero field keeps all.
type RetentionLimits struct {
	ExecutionsBefore time.Time // executions that ended before go, with their files
	ExecutionsMax    int64     // ended executions; the oldest beyond go
	LogsBefore       time.Time // of executions that ended before, the files go
	BytesMax         int64     // of the files of all ended executions; the oldest beyond go
	DeliveriesBefore time.Time
	TicksBefore      time.Time
	AuditBefore      time.Time
	KeysBefore       time.Time // idempotency keys of executions made before
}

// Expired counts what retention took, or would take.
type Expired struct {
	Executions      int64 `json:"executions"`
	Logs            int64 `json:"logs"` // files that go while the execution's row stays
	Bytes           int64 `json:"bytes"`
	Deliveries      int64 `json:"deliveries"`
	Ticks           int64 `json:"ticks"`
	Audit           int64 `json:"audit"`
	IdempotencyKeys int64 `json:"idempotency_keys"`
}

// Rows is how many rows it is about.
func (e Expired) Rows() int64 {
	return e.Executions + e.Logs + e.Deliveries + e.Ticks + e.Audit + e.IdempotencyKeys
}

// Add adds other to e.
func (e *Expired) Add(other Expired) {
	e.Executions += other.Executions
	e.Logs += other.Logs
	e.Bytes += other.Bytes
	e.Deliveries += other.Deliveries
	e.Ticks += other.Ticks
	e.Audit += other.Audit
	e.IdempotencyKeys += other.IdempotencyKeys
}

// endedOnes is what retention may take of executions: what has ended and is tidied,
// unless it is pinned. keptOnes narrows it to those that have their files.
const (
	endedOnes = `finished_at IS NOT NULL AND untidied IS NULL AND pinned_at IS NULL`
	keptOnes  = endedOnes + ` AND log_removed_at IS NULL`
)

// What goes by its age alone, as the condition of its table. Nothing goes that
// belongs to an execution which has not ended, and the latest tick of a schedule
// stays: it says up to when its due times are decided.
const (
	oldDeliveries = `id < $1 AND NOT EXISTS (SELECT 1 FROM delivery_trigger d JOIN execution e ON e.id = d.execution_id
		WHERE d.delivery_id = delivery.id AND e.finished_at IS NULL)`
	oldTicks = `due_at < $1 AND due_at < (SELECT MAX(k.due_at) FROM tick k WHERE k.schedule_id = tick.schedule_id)
		AND NOT EXISTS (SELECT 1 FROM execution e WHERE e.id = tick.execution_id AND e.finished_at IS NULL)`
	oldAudit = `at < $1`
	oldKeys  = `execution_id < $1 AND NOT EXISTS (SELECT 1 FROM execution e WHERE e.id = idempotency.execution_id AND e.finished_at IS NULL)`
)

// aged lists the four of them with what they are limited by.
func (l RetentionLimits) aged(e *Expired) []agedRows {
	all := []agedRows{
		{"delivery", "id", oldDeliveries, `id`, l.DeliveriesBefore, nil, &e.Deliveries},
		{"tick", "schedule_id, due_at", oldTicks, `due_at, schedule_id`, l.TicksBefore, micros(l.TicksBefore), &e.Ticks},
		{"audit", "id", oldAudit, `at, id`, l.AuditBefore, micros(l.AuditBefore), &e.Audit},
		{"idempotency", "scope, key", oldKeys, `execution_id`, l.KeysBefore, nil, &e.IdempotencyKeys},
	}
	if !l.DeliveriesBefore.IsZero() {
		all[0].limit = idFloor(l.DeliveriesBefore)
	}
	if !l.KeysBefore.IsZero() {
		all[3].limit = strings.Replace(idFloor(l.KeysBefore), "dlv", "exec", 1)
	}
	return slices.DeleteFunc(all, func(a agedRows) bool { return a.before.IsZero() })
}

type agedRows struct {
	table, key, where, order string
	before                   time.Time
	limit                    any
	count                    *int64
}

// Expire takes what lies beyond the limits, in one step of a few rows of each
// kind. Executions are taken out of the database and their folders noted for
// removal in one transaction; see Removals. It has come to its end when it
// returns nothing.
func (db *DB) Expire(ctx context.Context, l RetentionLimits, now time.Time) (Expired, error) {
	var got Expired
	err := db.write(ctx, "retention", func(tx *tx) error {
		got = Expired{}
		if err := tx.expireExecutions(l, &got); err != nil {
			return err
		}
		if err := tx.expireLogs(l, &got, now); err != nil {
			return err
		}
		for _, a := range l.aged(&got) {
			n, err := tx.affected(fmt.Sprintf(`DELETE FROM %[1]s WHERE (%[2]s) IN (SELECT %[2]s FROM %[1]s WHERE %[3]s ORDER BY %[4]s LIMIT %[5]d)`,
				a.table, a.key, a.where, a.order, retentionStep), a.limit)
			if err != nil {
				return err
			}
			*a.count += n
		}
		return nil
	})
	if err != nil {
		return Expired{}, err
	}
	return got, nil
}

// Expirable counts what Expire would take in all its steps.
func (db *DB) Expirable(ctx context.Context, l RetentionLimits) (Expired, error) {
	var got Expired
	err := db.read(ctx, "retention", func(r *reader) error {
		got = Expired{}
		over, err := tooMany(r, l)
		if err != nil {
			return err
		}
		// The two rules for executions take the oldest each, so the one that takes
		// more takes what the other does.
		var byAge int64
		if !l.ExecutionsBefore.IsZero() {
			if err := r.row(`SELECT COUNT(*) `+fromEnded+` AND finished_at < $1`, micros(l.ExecutionsBefore)).Scan(&byAge); err != nil {
				return err
			}
		}
		err = r.row(`SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM (SELECT bytes `+fromEnded+` ORDER BY finished_at, id LIMIT $1)`,
			max(byAge, over)).Scan(&got.Executions, &got.Bytes)
		if err != nil {
			return err
		}
		if err := expirableLogs(r, l, &got); err != nil {
			return err
		}
		for _, a := range l.aged(&got) {
			if err := r.row(`SELECT COUNT(*) FROM `+a.table+` WHERE `+a.where, a.limit).Scan(a.count); err != nil {
				return err
			}
		}
		return nil
	})
	return got, err
}

// expirableLogs counts the executions of which only the files would go, behind
// those that got says would go as a whole.
func expirableLogs(r *reader, l RetentionLimits, got *Expired) error {
	total, err := usedBytes(r)
	if err != nil {
		return err
	}
	total -= got.Bytes
	var lastAt int64
	var lastID string
	if got.Executions > 0 {
		err := r.row(`SELECT finished_at, id `+fromEnded+` ORDER BY finished_at, id LIMIT 1 OFFSET $1`, got.Executions-1).Scan(&lastAt, &lastID)
		if err != nil {
			return err
		}
	}
	rows, err := r.query(`SELECT finished_at, COALESCE(bytes, 0) `+fromKept+` AND (finished_at, id) > ($1, $2) ORDER BY finished_at, id`, lastAt, lastID)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at, bytes int64
		if err := rows.Scan(&at, &bytes); err != nil {
			return err
		}
		byAge := !l.LogsBefore.IsZero() && at < l.LogsBefore.UnixMicro()
		if !byAge && (l.BytesMax <= 0 || total <= l.BytesMax) {
			break
		}
		got.Logs++
		got.Bytes += bytes
		total -= bytes
	}
	return rows.Err()
}

// tooMany is how many ended executions there are beyond the limit.
func tooMany(q querier, l RetentionLimits) (int64, error) {
	if l.ExecutionsMax <= 0 {
		return 0, nil
	}
	var n int64
	err := q.row(`SELECT COALESCE(SUM(value), 0) FROM counter WHERE name IN ('success', 'failed', 'timeout', 'cancelled', 'interrupted')`).Scan(&n)
	return max(0, n-l.ExecutionsMax), err
}

func usedBytes(q querier) (n int64, err error) {
	err = q.row(`SELECT value FROM counter WHERE name = 'bytes'`).Scan(&n)
	return n, err
}

// ExecutionBytes is what the files of all ended executions take.
func (db *DB) ExecutionBytes(ctx context.Context) (n int64, err error) {
	err = db.r.QueryRowContext(ctx, `SELECT value FROM counter WHERE name = 'bytes'`).Scan(&n)
	return n, db.explain("execution bytes", err)
}

// old is an execution that may go.
type old struct {
	id       agented.ExecutionID
	state    agented.State
	finished int64
	bytes    int64
	removed  bool // its files went before
}

// The planner cannot tell that the second index is the smaller one.
const (
	fromEnded = `FROM execution INDEXED BY execution_ended WHERE ` + endedOnes
	fromKept  = `FROM execution INDEXED BY execution_kept WHERE ` + keptOnes
)

func (tx *tx) oldest(from string) ([]old, error) {
	rows, err := tx.query(`SELECT id, status, finished_at, COALESCE(bytes, 0), log_removed_at IS NOT NULL `+from+` ORDER BY finished_at, id LIMIT $1`, retentionStep)
	return collect(rows, err, func(o *old, scan func(...any) error) error {
		return scan(&o.id, &o.state, &o.finished, &o.bytes, &o.removed)
	})
}

func (tx *tx) expireExecutions(l RetentionLimits, got *Expired) error {
	over, err := tooMany(tx, l)
	if err != nil || over == 0 && l.ExecutionsBefore.IsZero() {
		return err
	}
	list, err := tx.oldest(fromEnded)
	if err != nil {
		return err
	}
	for _, o := range list {
		if over <= 0 && (l.ExecutionsBefore.IsZero() || o.finished >= l.ExecutionsBefore.UnixMicro()) {
			break
		}
		if err := tx.exec(`DELETE FROM execution WHERE id = $1`, o.id); err != nil {
			return err
		}
		if err := tx.count(o.state, -1); err != nil {
			return err
		}
		if !o.removed {
			if err := tx.giveUpFiles(o); err != nil {
				return err
			}
		}
		over--
		got.Executions++
		got.Bytes += o.bytes
	}
	return nil
}

func (tx *tx) expireLogs(l RetentionLimits, got *Expired, now time.Time) error {
	if l.LogsBefore.IsZero() && l.BytesMax <= 0 {
		return nil
	}
	total, err := usedBytes(tx)
	if err != nil {
		return err
	}
	list, err := tx.oldest(fromKept)
	if err != nil {
		return err
	}
	for _, o := range list {
		byAge := !l.LogsBefore.IsZero() && o.finished < l.LogsBefore.UnixMicro()
		if !byAge && (l.BytesMax <= 0 || total <= l.BytesMax) {
			break
		}
		// No event: to whoever listens, a final state comes once.
		if err := tx.exec(`UPDATE execution SET log_removed_at = $2, bytes = 0 WHERE id = $1`, o.id, micros(now)); err != nil {
			return err
		}
		if err := tx.giveUpFiles(o); err != nil {
			return err
		}
		total -= o.bytes
		got.Logs++
		got.Bytes += o.bytes
	}
	return nil
}

func (tx *tx) giveUpFiles(o old) error {
	if err := tx.exec(`UPDATE counter SET value = value - $1 WHERE name = 'bytes'`, o.bytes); err != nil {
		return err
	}
	return tx.exec(`INSERT INTO removal (execution_id) VALUES ($1) ON CONFLICT DO NOTHING`, o.id)
}

// Removals returns up to limit executions whose folders are to be removed. What
// was decided stays in the list until Removed is told, so a crash in between
// leaves no folder behind.
func (db *DB) Removals(ctx context.Context, limit int) ([]agented.ExecutionID, error) {
	rows, err := db.r.QueryContext(ctx, `SELECT execution_id FROM removal ORDER BY execution_id LIMIT $1`, limit)
	ids, err := collect(rows, err, scanID)
	return ids, db.explain("removals", err)
}

// Removed notes that the folders are gone.
func (db *DB) Removed(ctx context.Context, ids []agented.ExecutionID) error {
	if len(ids) == 0 {
		return nil
	}
	return db.write(ctx, "removed", func(tx *tx) error {
		for _, id := range ids {
			if err := tx.exec(`DELETE FROM removal WHERE execution_id = $1`, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Measured notes what the files of an ended execution take.
func (db *DB) Measured(ctx context.Context, id agented.ExecutionID, bytes int64) error {
	return db.write(ctx, "measured", func(tx *tx) error { return tx.measured(id, bytes) })
}

func (tx *tx) measured(id agented.ExecutionID, bytes int64) error {
	var before int64
	err := tx.row(`SELECT COALESCE(bytes, 0) FROM execution WHERE id = $1 AND finished_at IS NOT NULL AND log_removed_at IS NULL`, id).Scan(&before)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := tx.exec(`UPDATE execution SET bytes = $2 WHERE id = $1`, id, bytes); err != nil {
		return err
	}
	return tx.exec(`UPDATE counter SET value = value + $1 WHERE name = 'bytes'`, bytes-before)
}

// Unmeasured returns up to limit executions behind after, in the order of their
// ids, that have files of which nobody knows how much they take.
func (db *DB) Unmeasured(ctx context.Context, after agented.ExecutionID, limit int) ([]agented.ExecutionID, error) {
	rows, err := db.r.QueryContext(ctx, `SELECT id FROM execution WHERE id > $1 AND bytes IS NULL AND untidied IS NULL
		AND finished_at IS NOT NULL AND log_removed_at IS NULL ORDER BY id LIMIT $2`, after, limit)
	ids, err := collect(rows, err, scanID)
	return ids, db.explain("unmeasured", err)
}

// Pin has retention leave an execution alone, or lets it go again. by is who
// asks. Doing it twice changes nothing.
func (db *DB) Pin(ctx context.Context, id agented.ExecutionID, on bool, by string, now time.Time) (*agented.Execution, error) {
	var e *agented.Execution
	err := db.write(ctx, "pin", func(tx *tx) (err error) {
		if e, err = load(tx, id); err != nil || on != e.PinnedAt.IsZero() {
			return err
		}
		at, owner, action := micros(now), by, "execution.pin"
		if !on {
			at, owner, action = micros{}, "", "execution.unpin"
		}
		if err := tx.exec(`UPDATE execution SET pinned_at = $2, pinned_by = $3 WHERE id = $1`, id, at, owner); err != nil {
			return err
		}
		if err := tx.audit(AuditEntry{At: now, Actor: by, Action: action, Subject: string(id)}); err != nil {
			return err
		}
		e, err = load(tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// SayWhyWaiting tells the executions in front of the queue why they do not run.
func (db *DB) SayWhyWaiting(ctx context.Context, reason string, now time.Time) error {
	return db.write(ctx, "say why", func(tx *tx) error { return tx.markWaiting(reason, now) })
}

// freeShare is how many of a hundred pages are left free for what comes next.
const freeShare = 10

// GiveBack makes the database file smaller when many of its pages are free, a
// few pages at a time, and cuts the write-ahead log back. It returns how many
// bytes the file lost. Databases that were made before version 4 reuse their free
// pages and do not shrink.
func (db *DB) GiveBack(ctx context.Context) (int64, error) {
	const step = 256 // pages
	var given int64
	for {
		var pages, free, size int64
		err := db.r.QueryRowContext(ctx, `SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&pages, &free, &size)
		if err != nil {
			return given, db.explain("give back", err)
		}
		if free-step < pages*freeShare/100 {
			break
		}
		if err := db.alone(ctx, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, step)); err != nil {
			return given, db.explain("give back", err)
		}
		var now int64
		if err := db.r.QueryRowContext(ctx, `SELECT page_count FROM pragma_page_count`).Scan(&now); err != nil {
			return given, db.explain("give back", err)
		}
		if now >= pages {
			break // made without auto_vacuum
		}
		given += (pages - now) * size
	}
	// A reader that is at it keeps the log as it is until the next time.
	err := db.alone(ctx, `PRAGMA busy_timeout(100)`, `PRAGMA wal_checkpoint(TRUNCATE)`, `PRAGMA busy_timeout(10000)`)
	return given, db.explain("give back", err)
}

// alone runs statements in the writer's turn, outside of a transaction.
func (db *DB) alone(ctx context.Context, statements ...string) error {
	select {
	case db.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closed:
		return sql.ErrConnDone
	}
	defer func() { <-db.turn }()
	ctx = context.WithoutCancel(ctx) // what the first one sets, the last one sets back
	for _, q := range statements {
		rows, err := db.conn.QueryContext(ctx, q)
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
	}
	return nil
}

// TidiedAs is Tidied and Measured in one.
func (db *DB) TidiedAs(ctx context.Context, id agented.ExecutionID, bytes int64) error {
	return db.write(ctx, "tidied", func(tx *tx) error {
		if err := tx.exec(`UPDATE execution SET untidied = NULL WHERE id = $1`, id); err != nil {
			return err
		}
		return tx.measured(id, bytes)
	})
}
