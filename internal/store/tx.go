package store

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/policy"
)

// tx is a write transaction.
type tx struct {
	database.Tx
	db       *DB
	reported []agented.ExecutionEvent // see collectEvents
	changed  []agented.ExecutionID    // changed since the last call of collectEvents, in the order of their event_seq
	seq      int64                    // of the last of them; 0: none
	kept     int64                    // value of the event counter's row; 0: unknown
	rules    string                   // version of the rules; empty: not read yet
	ruled    bool                     // the version has changed
	gated    bool                     // rules may be changed in it
	noticed  bool                     // there are new notifications

	fresh map[agented.ExecutionID]*agented.Execution // inserted and not changed since
	loads map[agented.TriggerID]*policy.TriggerLoad  // read, and updated by insert
}

// write runs f in the single write transaction, commits, and reports the
// changes to OnChange. what names the operation in errors.
func (db *DB) write(ctx context.Context, what string, f func(*tx) error) error {
	if tx := togetherIn(ctx, db); tx != nil {
		return explain(what, f(tx))
	}
	return explain(what, db.transact(ctx, f))
}

func (db *DB) transact(ctx context.Context, f func(*tx) error) error {
	return db.engine.Write(ctx, func(t database.Tx) error {
		tx := &tx{Tx: t, db: db}
		t.OnCommit(tx.publish)
		if err := f(tx); err != nil {
			return err
		}
		if err := tx.keepSeq(); err != nil {
			return err
		}
		return tx.collectEvents()
	})
}

// publish reports what the transaction has committed.
func (tx *tx) publish() {
	if tx.ruled {
		version := tx.rules // do not retain tx
		tx.db.rules.Store(&version)
	}
	for _, e := range tx.reported {
		tx.db.onChange(e)
	}
	if tx.noticed && tx.db.onNotice != nil {
		tx.db.onNotice()
	}
}

// inGroup runs do in a transaction that it may share with others, and returns
// when that is durable. If the context ends, it is unknown whether do was
// committed.
func inGroup[T any](ctx context.Context, db *DB, op string, do func(*tx) (T, error)) (T, error) {
	var none, got T
	err := db.groups.Do(ctx, func(tx *tx) (err error) {
		got, err = do(tx)
		return err
	})
	if err != nil {
		return none, explain(op, err)
	}
	return got, nil
}

// collectEvents records the changes so far for OnChange: an execution that changes again
// is reported again.
func (tx *tx) collectEvents() error {
	events, err := tx.events()
	tx.reported, tx.changed = append(tx.reported, events...), nil
	return err
}

// events returns the changed executions at the end of the transaction. Those
// that were only inserted are known; the others are loaded.
func (tx *tx) events() ([]agented.ExecutionEvent, error) {
	if tx.db.onChange == nil || len(tx.changed) == 0 {
		return nil, nil
	}
	seen := make(map[agented.ExecutionID]bool, len(tx.changed))
	out := make([]agented.ExecutionEvent, 0, len(tx.changed))
	var ids []agented.ExecutionID
	for _, id := range tx.changed {
		if seen[id] {
			continue
		}
		seen[id] = true
		if e := tx.fresh[id]; e != nil {
			out = append(out, agented.ExecutionEvent{Seq: e.EventSeq, Execution: e})
		} else {
			ids = append(ids, id)
		}
	}
	for part := range slices.Chunk(ids, 200) {
		list, err := loadBrief(tx, part)
		if err != nil {
			return nil, err
		}
		for i := range list {
			out = append(out, agented.ExecutionEvent{Seq: list[i].EventSeq, Execution: &list[i]})
		}
	}
	slices.SortFunc(out, func(a, b agented.ExecutionEvent) int { return cmp.Compare(a.Seq, b.Seq) })
	return out, nil
}

// change allocates the next event number for a change of the execution. The
// caller writes it into the row.
func (tx *tx) change(id agented.ExecutionID) (int64, error) {
	delete(tx.fresh, id)
	tx.loads = nil
	return tx.nextSeq(id)
}

// nextSeq is change for a new execution. Only the first number of a transaction
// is read from the database: the others follow it, and keepSeq stores the last
// one.
func (tx *tx) nextSeq(id agented.ExecutionID) (int64, error) {
	if tx.seq == 0 {
		err := tx.row(`UPDATE counter SET value = value + 1 WHERE name = 'event' RETURNING value`).Scan(&tx.seq)
		if err != nil {
			return 0, err
		}
		tx.kept = tx.seq
	} else {
		tx.seq++
	}
	tx.changed = append(tx.changed, id)
	return tx.seq, nil
}

// keepSeq stores the last event number.
func (tx *tx) keepSeq() error {
	if tx.seq == tx.kept {
		return nil
	}
	tx.kept = tx.seq
	return tx.exec(`UPDATE counter SET value = $1 WHERE name = 'event'`, tx.seq)
}

// mark is a state of a transaction to which it can be rolled back.
type mark struct {
	changed int
	seq     int64
}

func (tx *tx) mark() mark { return mark{len(tx.changed), tx.seq} }

// backTo restores the state of m after the database has been rolled back.
func (tx *tx) backTo(m mark) {
	for _, id := range tx.changed[m.changed:] {
		delete(tx.fresh, id) // an execution that was changed and new before is loaded, which is always correct
	}
	tx.changed, tx.loads = tx.changed[:m.changed], nil
	if tx.seq != m.seq {
		tx.seq, tx.kept = m.seq, 0 // the row may have its value from before the first change
	}
}

// Savepoint runs f so that its error undoes only what f has changed.
func (tx *tx) Savepoint(f func() error) (failed, err error) {
	before := tx.mark()
	if failed, err = tx.Tx.Savepoint(f); failed != nil {
		tx.backTo(before)
	}
	return failed, err
}

// togetherKey is the context key of a transaction.
type togetherKey struct{}

// togetherIn returns the transaction of db in ctx, nil if there is none.
func togetherIn(ctx context.Context, db *DB) *tx {
	if tx, ok := ctx.Value(togetherKey{}).(*tx); ok && tx.db == db {
		return tx
	}
	return nil
}

// errUndone rolls a transaction back intentionally.
var errUndone = errors.New("the transaction is rolled back")

// Together runs f in one transaction: everything that f writes with its context
// is stored, or nothing if f returns an error. Without keep, nothing is stored
// in any case (a dry run). Reads see the earlier state. Rules may change in it,
// so f must not hold them.
func (db *DB) Together(ctx context.Context, what string, keep bool, f func(context.Context) error) error {
	tried := false
	// Lock order: the gate of the rules before the writer's turn, as
	// everywhere.
	err := db.writeRules(ctx, what, func(tx *tx) error {
		if err := f(context.WithValue(ctx, togetherKey{}, tx)); err != nil {
			return err
		}
		if !keep {
			tried = true
			return errUndone
		}
		return nil
	})
	if tried {
		return nil
	}
	return err
}
