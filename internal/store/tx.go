package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"

	"github.com/agented/agented"
)

// querier is what reads: a write transaction or a read one.
type querier interface {
	query(q string, args ...any) (*sql.Rows, error)
	row(q string, args ...any) *sql.Row
}

// tx is a write transaction. It lives as long as the call of write that made
// it, hence the context in it.
type tx struct {
	ctx     context.Context
	db      *DB
	told    []agented.ExecutionEvent // see tell
	changed []agented.ExecutionID    // since then, in the order of their event_seq
	seq     int64                    // of the last of them; 0: none was taken yet
	kept    int64                    // of the event counter's row, as far as it is known
	rules   string                   // the version of the rules; empty: it was not looked up yet
	ruled   bool                     // and it is another one than before

	fresh map[agented.ExecutionID]*agented.Execution // inserted, and not changed since
	loads map[agented.TriggerID]*triggerLoad         // looked up, and kept up to date by insert
}

// write runs f in the one write transaction at a time, commits, and tells
// OnChange what changed. what names the doing in errors.
func (db *DB) write(ctx context.Context, what string, f func(*tx) error) error {
	select {
	case db.turn <- struct{}{}:
	case <-ctx.Done():
		return db.explain(what, ctx.Err())
	case <-db.closed:
		return db.explain(what, sql.ErrConnDone)
	}
	defer func() { <-db.turn }()
	if err := ctx.Err(); err != nil {
		return db.explain(what, err)
	}
	// From here on the end of ctx counts no more: it must not leave it open whether
	// the transaction was committed, nor whether it was begun. A statement that is
	// cut short may have been carried out.
	tx := &tx{ctx: context.WithoutCancel(ctx), db: db}
	open := true
	defer func() {
		if open { // an error from here says that there is none, or SQLite has rolled back by itself
			tx.exec(`ROLLBACK`)
		}
	}()
	if err := tx.exec(`BEGIN IMMEDIATE`); err != nil {
		return db.explain(what, err)
	}
	if err := f(tx); err != nil {
		return db.explain(what, err)
	}
	if err := tx.keepSeq(); err != nil {
		return db.explain(what, err)
	}
	if err := tx.tell(); err != nil {
		return db.explain(what, err)
	}
	if err := tx.exec(`COMMIT`); err != nil {
		return db.explain(what, err)
	}
	open = false
	if tx.ruled {
		version := tx.rules // not all of tx
		db.rules.Store(&version)
	}
	for _, e := range tx.told {
		db.onChange(e)
	}
	return nil
}

// tell keeps what changed until now for OnChange: what changes again is told again.
func (tx *tx) tell() error {
	events, err := tx.events()
	tx.told, tx.changed = append(tx.told, events...), nil
	return err
}

// events says what changed, as the transaction leaves it. What was only inserted
// is known; the rest is loaded.
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

// change takes the next event number for a change of the execution. The caller
// writes it into the row.
func (tx *tx) change(id agented.ExecutionID) (int64, error) {
	delete(tx.fresh, id)
	tx.loads = nil
	return tx.nextSeq(id)
}

// nextSeq is change for an execution that is new. Only the first number of a
// transaction comes from the database: the others follow it, and keepSeq writes
// the last one down.
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

// keepSeq writes the last event number down.
func (tx *tx) keepSeq() error {
	if tx.seq == tx.kept {
		return nil
	}
	tx.kept = tx.seq
	return tx.exec(`UPDATE counter SET value = $1 WHERE name = 'event'`, tx.seq)
}

// mark is how far a transaction has come, for what may be taken back.
type mark struct {
	changed int
	seq     int64
}

func (tx *tx) mark() mark { return mark{len(tx.changed), tx.seq} }

// backTo forgets what was done after m, which the database has taken back.
func (tx *tx) backTo(m mark) {
	for _, id := range tx.changed[m.changed:] {
		delete(tx.fresh, id) // one that was changed and was fresh before is loaded: that is never wrong
	}
	tx.changed, tx.loads = tx.changed[:m.changed], nil
	if tx.seq != m.seq {
		tx.seq, tx.kept = m.seq, 0 // the row may be as it was before the first change
	}
}

// maxPrepared bounds how many statements stay prepared; those that lists make
// up have no bound of their own.
const maxPrepared = 200

// beforeStatement is called before each statement of a write transaction; tests
// end the process in it.
var beforeStatement = func(query string) {}

// prepared returns the statement of that text. Preparing costs more than most
// statements take to run. The writer's turn guards the map.
func (tx *tx) prepared(q string) (s *sql.Stmt, release func(), err error) {
	beforeStatement(q)
	if s := tx.db.stmts[q]; s != nil {
		return s, func() {}, nil
	}
	if s, err = tx.db.conn.PrepareContext(tx.ctx, q); err != nil {
		return nil, nil, err
	}
	if len(tx.db.stmts) >= maxPrepared {
		return s, func() { s.Close() }, nil
	}
	tx.db.stmts[q] = s
	return s, func() {}, nil
}

// exec runs a statement.
func (tx *tx) exec(q string, args ...any) error {
	_, err := tx.affected(q, args...)
	return err
}

// affected is exec that returns how many rows it touched.
func (tx *tx) affected(q string, args ...any) (int64, error) {
	s, release, err := tx.prepared(q)
	if err != nil {
		return 0, err
	}
	defer release()
	res, err := s.ExecContext(tx.ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (tx *tx) query(q string, args ...any) (*sql.Rows, error) {
	s, release, err := tx.prepared(q)
	if err != nil {
		return nil, err
	}
	defer release() // the rows keep it until they are closed
	return s.QueryContext(tx.ctx, args...)
}

func (tx *tx) row(q string, args ...any) *sql.Row {
	s, release, err := tx.prepared(q)
	if err != nil {
		return tx.db.conn.QueryRowContext(tx.ctx, q, args...) // says the same error
	}
	defer release()
	return s.QueryRowContext(tx.ctx, args...)
}

// reader is a read transaction: what it reads fits together.
type reader struct {
	ctx context.Context
	t   *sql.Tx
}

// read runs f in a read transaction.
func (db *DB) read(ctx context.Context, what string, f func(*reader) error) error {
	t, err := db.r.BeginTx(ctx, nil)
	if err != nil {
		return db.explain(what, err)
	}
	defer t.Rollback()
	return db.explain(what, f(&reader{ctx, t}))
}

func (r *reader) query(q string, args ...any) (*sql.Rows, error) {
	return r.t.QueryContext(r.ctx, q, args...)
}

func (r *reader) row(q string, args ...any) *sql.Row {
	return r.t.QueryRowContext(r.ctx, q, args...)
}

// hotStmt returns a statement for reading that stays prepared, on each connection
// that has used it. To prepare one costs more than most take to run, and memory
// while it is kept: this is for the few that are asked all day, with constant text.
func (db *DB) hotStmt(ctx context.Context, q string) (*sql.Stmt, error) {
	if s, ok := db.hot.Load(q); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.r.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	if first, loaded := db.hot.LoadOrStore(q, s); loaded {
		s.Close()
		s = first.(*sql.Stmt)
	}
	return s, nil
}

// hotRow is QueryRowContext of the readers with hotStmt.
func (db *DB) hotRow(ctx context.Context, q string, args ...any) *sql.Row {
	s, err := db.hotStmt(ctx, q)
	if err != nil {
		return db.r.QueryRowContext(ctx, q, args...) // says the same error
	}
	return s.QueryRowContext(ctx, args...)
}

// collect reads all rows with scan.
func collect[T any](rows *sql.Rows, err error, scan func(*T, func(...any) error) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(&v, rows.Scan); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
