package store

import (
	"context"
	"errors"
	"sync"
)

// maxGroup bounds how many jobs share a transaction, so that the writer's
// turn comes round for others.
const maxGroup = 64

// groups gathers deliveries and messages that wait for the writer: those that came while one
// transaction was made durable share the next one. Each stands for itself: what
// goes wrong with one takes back that one.
type groups struct {
	mu      sync.Mutex // guards all
	waiting []*groupJob
	working bool // some goroutine takes what waits
}

type groupJob struct {
	op   string // for its error
	do   func(*tx) error
	err  error
	done chan struct{}
}

// inGroup runs do in a transaction that it may share with others, and returns
// when that is durable. A context that ends leaves open whether it was.
func inGroup[T any](ctx context.Context, db *DB, op string, do func(*tx) (T, error)) (T, error) {
	var none, got T
	j := &groupJob{op: op, done: make(chan struct{}), do: func(tx *tx) (err error) {
		got, err = do(tx)
		return err
	}}
	g := &db.groups
	g.mu.Lock()
	g.waiting = append(g.waiting, j)
	if !g.working {
		g.working = true
		go db.workGroups(context.WithoutCancel(ctx))
	}
	g.mu.Unlock()
	select {
	case <-j.done:
		if j.err != nil {
			return none, j.err
		}
		return got, nil
	case <-ctx.Done():
		return none, db.explain(op, ctx.Err())
	}
}

// workGroups takes what waits until nothing does.
func (db *DB) workGroups(ctx context.Context) {
	g := &db.groups
	for {
		g.mu.Lock()
		jobs := g.waiting[:min(len(g.waiting), maxGroup)]
		g.waiting = g.waiting[len(jobs):]
		if len(jobs) == 0 {
			g.waiting, g.working = nil, false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		err := db.write(ctx, jobs[0].op, func(tx *tx) error { return tx.doGroup(jobs) })
		if errors.Is(err, errApart) {
			err = db.write(ctx, jobs[0].op, func(tx *tx) error { return tx.doApart(jobs) })
		}
		for _, j := range jobs {
			if err != nil {
				j.err = err
			}
			close(j.done)
		}
	}
}

// errApart says that a job of a group has failed: the group is done once more,
// so that what it did can be taken back alone.
var errApart = errors.New("a job of the group failed")

// doGroup runs the jobs one after the other. They hardly ever fail, and a
// savepoint makes SQLite copy each page that is written behind it: the first
// failure takes back all of them.
func (tx *tx) doGroup(jobs []*groupJob) error {
	for _, j := range jobs {
		err := j.do(tx)
		switch {
		case err == nil:
		case len(jobs) == 1:
			return err
		default:
			return errApart
		}
	}
	return nil
}

// doApart is doGroup for a group in which something fails: each job is behind a
// savepoint.
func (tx *tx) doApart(jobs []*groupJob) error {
	for _, j := range jobs {
		before := tx.mark()
		if err := tx.exec(`SAVEPOINT job`); err != nil {
			return err
		}
		if j.err = j.do(tx); j.err != nil {
			j.err = tx.db.explain(j.op, j.err)
			if err := tx.exec(`ROLLBACK TO job`); err != nil {
				return err
			}
			tx.backTo(before)
		}
		if err := tx.exec(`RELEASE job`); err != nil {
			return err
		}
	}
	return nil
}
