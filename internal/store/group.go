package store

import (
	"context"
	"sync"
)

// maxGroup bounds how many deliveries share a transaction, so that the writer's
// turn comes round for others.
const maxGroup = 64

// groups gathers deliveries that wait for the writer: those that came while one
// transaction was made durable share the next one. Each stands for itself: what
// goes wrong with one takes back that one.
type groups struct {
	mu      sync.Mutex // guards all
	waiting []*groupJob
	working bool // some goroutine takes what waits
}

type groupJob struct {
	do   func(*tx) (DeliveryResult, error)
	got  DeliveryResult
	err  error
	done chan struct{}
}

// inGroup runs do in a transaction that it may share with others, and returns
// when that is durable. A context that ends leaves open whether it was.
func (db *DB) inGroup(ctx context.Context, do func(*tx) (DeliveryResult, error)) (DeliveryResult, error) {
	j := &groupJob{do: do, done: make(chan struct{})}
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
		return j.got, j.err
	case <-ctx.Done():
		return DeliveryResult{}, db.explain("admit delivery", ctx.Err())
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
		err := db.write(ctx, "admit delivery", func(tx *tx) error { return tx.doGroup(jobs) })
		for _, j := range jobs {
			if err != nil {
				j.got, j.err = DeliveryResult{}, err
			}
			close(j.done)
		}
	}
}

// doGroup runs the jobs one after the other, each behind a savepoint.
func (tx *tx) doGroup(jobs []*groupJob) error {
	for _, j := range jobs {
		if len(jobs) == 1 {
			j.got, j.err = j.do(tx)
			return j.err
		}
		changed := len(tx.changed)
		if err := tx.exec(`SAVEPOINT job`); err != nil {
			return err
		}
		if j.got, j.err = j.do(tx); j.err != nil {
			j.got, j.err = DeliveryResult{}, tx.db.explain("admit delivery", j.err)
			tx.changed = tx.changed[:changed]
			if err := tx.exec(`ROLLBACK TO job`); err != nil {
				return err
			}
		}
		if err := tx.exec(`RELEASE job`); err != nil {
			return err
		}
	}
	return nil
}
