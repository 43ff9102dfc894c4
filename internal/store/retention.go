package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// retentionStep is how many rows of a kind one retention transaction removes,
// so that it holds the writer only for milliseconds.
const retentionStep = 50

// RetentionLimits are the limits of retention. A zero field keeps everything.
type RetentionLimits struct {
	ExecutionsBefore time.Time // executions that ended earlier are removed with their files
	ExecutionsMax    int64     // number of ended executions; the oldest are removed first
	LogsBefore       time.Time // files of executions that ended earlier are removed
	BytesMax         int64     // of the files of all ended executions; the oldest are removed first
	DeliveriesBefore time.Time
	TicksBefore      time.Time
	AuditBefore      time.Time
	KeysBefore       time.Time // idempotency keys of executions created earlier are removed
}

// Expired counts what retention removed, or would remove.
type Expired struct {
	Executions      int64 `json:"executions"`
	Logs            int64 `json:"logs"` // removed files of executions whose row remains
	Bytes           int64 `json:"bytes"`
	Deliveries      int64 `json:"deliveries"`
	Ticks           int64 `json:"ticks"`
	Audit           int64 `json:"audit"`
	IdempotencyKeys int64 `json:"idempotency_keys"`
}

// Rows returns the number of affected rows.
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

// endedOnes selects the executions that retention may remove: ended, cleaned up, not
// pinned, and with nothing left to publish. keptOnes selects those of them that have their files.
const (
	endedOnes = `finished_at IS NOT NULL AND cleanup_due_at IS NULL AND pinned_at IS NULL
		AND id NOT IN (SELECT execution_id FROM publication WHERE status IN ('pending', 'held'))`
	keptOnes = endedOnes + ` AND log_removed_at IS NULL`
)

// Conditions for rows that are removed by age alone. Rows of an execution that
// has not ended remain, and so does the latest tick of a schedule, which
// records up to when due times are decided.
const (
	oldDeliveries = `id < $1 AND NOT EXISTS (SELECT 1 FROM delivery_trigger d JOIN execution e ON e.id = d.execution_id
		WHERE d.delivery_id = delivery.id AND e.finished_at IS NULL)`
	oldTicks = `due_at < $1 AND due_at < (SELECT MAX(k.due_at) FROM tick k WHERE k.schedule_id = tick.schedule_id)
		AND NOT EXISTS (SELECT 1 FROM execution e WHERE e.id = tick.execution_id AND e.finished_at IS NULL)`
	oldAudit = `at < $1`
	oldKeys  = `execution_id < $1 AND NOT EXISTS (SELECT 1 FROM execution e WHERE e.id = idempotency.execution_id AND e.finished_at IS NULL)`
)

// aged returns the four kinds with their limits.
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

// Expire removes a few rows of each kind beyond the limits, in one transaction.
// Executions are deleted and their folders added to the list of removals in one
// transaction; see Removals. Call it until it returns nothing.
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

// Expirable counts what all calls of Expire would remove.
func (db *DB) Expirable(ctx context.Context, l RetentionLimits) (Expired, error) {
	var got Expired
	err := db.read(ctx, "retention", func(r *reader) error {
		got = Expired{}
		over, err := tooMany(r, l)
		if err != nil {
			return err
		}
		// Both rules for executions remove the oldest first, so the one that
		// removes more includes the other.
		var byAge int64
		if !l.ExecutionsBefore.IsZero() {
			if err := r.row(`SELECT COUNT(*) `+fromEnded(r)+` AND finished_at < $1`, micros(l.ExecutionsBefore)).Scan(&byAge); err != nil {
				return err
			}
		}
		err = r.row(`SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM (SELECT bytes `+fromEnded(r)+` ORDER BY finished_at, id LIMIT $1) AS ended`,
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

// expirableLogs counts the executions of which only the files would be removed,
// excluding those that got already counts.
func expirableLogs(r *reader, l RetentionLimits, got *Expired) error {
	total, err := usedBytes(r)
	if err != nil {
		return err
	}
	total -= got.Bytes
	var lastAt int64
	var lastID string
	if got.Executions > 0 {
		err := r.row(`SELECT finished_at, id `+fromEnded(r)+` ORDER BY finished_at, id LIMIT 1 OFFSET $1`, got.Executions-1).Scan(&lastAt, &lastID)
		if err != nil {
			return err
		}
	}
	rows, err := r.query(`SELECT finished_at, COALESCE(bytes, 0) `+fromKept(r)+` AND (finished_at, id) > ($1, $2) ORDER BY finished_at, id`, lastAt, lastID)
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

// tooMany returns the number of ended executions beyond the limit.
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

// ExecutionBytes returns the size of the folders of all ended executions in
// bytes, including those that are still to be removed.
func (db *DB) ExecutionBytes(ctx context.Context) (n int64, err error) {
	err = db.row(ctx, `SELECT value + (SELECT COALESCE(SUM(bytes), 0) FROM folder_removal WHERE id LIKE 'exec-%') FROM counter WHERE name = 'bytes'`).Scan(&n)
	return n, explain("execution bytes", err)
}

// old is an execution that may be removed.
type old struct {
	id       agented.ExecutionID
	state    agented.State
	finished int64
	bytes    int64
	removed  bool // its files were removed earlier
}

// The planner of SQLite does not know that the second index is smaller.
func fromEnded(q querier) string {
	return `FROM execution` + q.useIndex("execution_ended") + ` WHERE ` + endedOnes
}

func fromKept(q querier) string {
	return `FROM execution` + q.useIndex("execution_kept") + ` WHERE ` + keptOnes
}

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
	list, err := tx.oldest(fromEnded(tx))
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
			if err := tx.markFilesForRemoval(o); err != nil {
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
	list, err := tx.oldest(fromKept(tx))
	if err != nil {
		return err
	}
	for _, o := range list {
		byAge := !l.LogsBefore.IsZero() && o.finished < l.LogsBefore.UnixMicro()
		if !byAge && (l.BytesMax <= 0 || total <= l.BytesMax) {
			break
		}
		// No event: subscribers receive a final state once.
		if err := tx.exec(`UPDATE execution SET log_removed_at = $2, bytes = 0 WHERE id = $1`, o.id, micros(now)); err != nil {
			return err
		}
		if err := tx.markFilesForRemoval(o); err != nil {
			return err
		}
		total -= o.bytes
		got.Logs++
		got.Bytes += o.bytes
	}
	return nil
}

func (tx *tx) markFilesForRemoval(o old) error {
	if err := tx.exec(`UPDATE counter SET value = value - $1 WHERE name = 'bytes'`, o.bytes); err != nil {
		return err
	}
	return tx.addRemoval(string(o.id), o.bytes)
}

// RecordFolderBytes records the size of the files of an ended execution.
func (db *DB) RecordFolderBytes(ctx context.Context, id agented.ExecutionID, bytes int64) error {
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

// Unmeasured returns up to limit executions after the id after, in the order of
// their ids, that have files of unknown size.
func (db *DB) Unmeasured(ctx context.Context, after agented.ExecutionID, limit int) ([]agented.ExecutionID, error) {
	rows, err := db.query(ctx, `SELECT id FROM execution WHERE id > $1 AND bytes IS NULL AND cleanup_due_at IS NULL
		AND finished_at IS NOT NULL AND log_removed_at IS NULL ORDER BY id LIMIT $2`, after, limit)
	ids, err := collect(rows, err, scanID)
	return ids, explain("unmeasured", err)
}

// Pin excludes an execution from retention, or includes it again. by is the
// actor. Repeating it changes nothing.
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

// SetWaitReason sets the reason why the executions at the front of the queue
// wait.
func (db *DB) SetWaitReason(ctx context.Context, reason string, now time.Time) error {
	return db.write(ctx, "set wait reason", func(tx *tx) error { return tx.markWaiting(reason, now) })
}

// Shrink shrinks the database file if many of its pages are free, truncates the
// write-ahead log, and returns by how many bytes the file shrank. Databases
// created before version 4 reuse their free pages and do not shrink.
func (db *DB) Shrink(ctx context.Context) (int64, error) {
	given, err := db.engine.Shrink(ctx)
	return given, explain("shrink database", err)
}

// CleanupDoneWithBytes records that the files of an ended execution are cleaned
// up, and their size.
func (db *DB) CleanupDoneWithBytes(ctx context.Context, id agented.ExecutionID, bytes int64) error {
	return db.write(ctx, "record a cleanup", func(tx *tx) error {
		if err := tx.exec(`UPDATE execution SET cleanup_due_at = NULL WHERE id = $1`, id); err != nil {
			return err
		}
		if err := tx.exec(`DELETE FROM secret_use WHERE execution_id = $1`, id); err != nil {
			return err
		}
		return tx.measured(id, bytes)
	})
}

// Removal is a folder whose rows are deleted and that still exists.
type Removal struct {
	ID       string    // id of an execution or a conversation
	Bytes    int64     // size on disk, as last measured
	Attempts int       // failed removals; 0 before the first
	FailedAt time.Time // time of the first failure
	Error    string    // error of the last failure
}

// FailedRemovals summarises the folders that could not be removed.
type FailedRemovals struct {
	Folders int64
	Bytes   int64
	Items   []Removal // the first few, oldest failure first
}

const removalColumns = `id, bytes, attempts, failed_at, error`

func scanRemoval(r *Removal, scan func(...any) error) error {
	return scan(&r.ID, &r.Bytes, &r.Attempts, toTime{&r.FailedAt}, &r.Error)
}

// Removals returns up to limit folders to be removed whose id is greater than
// after, in the order of their ids. A folder stays in the list until Removed,
// so that a crash leaves none behind.
func (db *DB) Removals(ctx context.Context, after string, limit int) ([]Removal, error) {
	rows, err := db.query(ctx, `SELECT `+removalColumns+` FROM folder_removal WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	list, err := collect(rows, err, scanRemoval)
	return list, explain("removals", err)
}

// Removed records that the folders are removed.
func (db *DB) Removed(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return db.write(ctx, "removed", func(tx *tx) error {
		for _, id := range ids {
			if err := tx.exec(`DELETE FROM folder_removal WHERE id = $1`, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemovalFailed records why a folder could not be removed, and its size in
// bytes.
func (db *DB) RemovalFailed(ctx context.Context, id string, bytes int64, cause string, now time.Time) error {
	return db.write(ctx, "removal failed", func(tx *tx) error {
		return tx.exec(`UPDATE folder_removal SET bytes = $2, attempts = attempts + 1, failed_at = COALESCE(failed_at, $3), error = $4 WHERE id = $1`,
			id, bytes, micros(now), format.Truncate(cause, maxSentence))
	})
}

// FailedRemovals returns how many folders could not be removed, and the first
// limit of them.
func (db *DB) FailedRemovals(ctx context.Context, limit int) (FailedRemovals, error) {
	var out FailedRemovals
	err := db.read(ctx, "failed removals", func(r *reader) error {
		err := r.row(`SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM folder_removal WHERE attempts > 0`).Scan(&out.Folders, &out.Bytes)
		if err != nil || out.Folders == 0 {
			return err
		}
		rows, err := r.query(`SELECT `+removalColumns+` FROM folder_removal WHERE attempts > 0 ORDER BY failed_at, id LIMIT $1`, limit)
		out.Items, err = collect(rows, err, scanRemoval)
		return err
	})
	return out, err
}

// addRemoval adds a folder to the list of removals.
func (tx *tx) addRemoval(id string, bytes int64) error {
	return tx.exec(`INSERT INTO folder_removal (id, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, bytes)
}

func (tx *tx) markConversationForRemoval(id agented.ConversationID) error {
	return tx.addRemoval(string(id), 0)
}
