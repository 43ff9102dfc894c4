package database

import (
	"context"
	"errors"
	"sync"
)

// maxGroup limits how many jobs share a transaction, so that other writers get
// their turn.
const maxGroup = 64

// Savepointer is a write transaction: a *[Tx], or a type that embeds one.
type Savepointer interface {
	Savepoint(f func() error) (failed, err error)
}

// Group batches jobs that wait for the writer (group commit): those that arrive
// during a commit share the next transaction. Each job is independent: an error
// rolls back only that job.
type Group[T Savepointer] struct {
	write   func(context.Context, func(T) error) error
	mu      sync.Mutex // guards the fields below
	waiting []*groupJob[T]
	working bool // a goroutine is processing waiting jobs
}

type groupJob[T any] struct {
	do   func(T) error
	err  error
	done chan struct{}
}

// NewGroup returns a group whose transactions are calls of write, usually
// [DB.Write].
func NewGroup[T Savepointer](write func(context.Context, func(T) error) error) *Group[T] {
	return &Group[T]{write: write}
}

// Do runs f in a transaction that it may share with others, and returns when
// that is durable. f may run more than once: the group is repeated if a job
// fails. If the context ends, it is unknown whether f was committed.
func (g *Group[T]) Do(ctx context.Context, f func(T) error) error {
	j := &groupJob[T]{do: f, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, j)
	if !g.working {
		g.working = true
		go g.process(context.WithoutCancel(ctx))
	}
	g.mu.Unlock()
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Waiting returns the number of jobs that are not in a transaction yet, and
// whether a transaction runs or waits for the writer.
func (g *Group[T]) Waiting() (jobs int, working bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting), g.working
}

// process processes waiting jobs until there are none.
func (g *Group[T]) process(ctx context.Context) {
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
		err := g.write(ctx, func(tx T) error { return runGroup(tx, jobs) })
		if errors.Is(err, errJobFailed) {
			err = g.write(ctx, func(tx T) error { return runIsolated(tx, jobs) })
		}
		for _, j := range jobs {
			if err != nil {
				j.err = err
			}
			close(j.done)
		}
	}
}

// errJobFailed reports that a job of a group has failed: the group is repeated, so
// that the job can be rolled back alone.
var errJobFailed = errors.New("a job of the group failed")

// runGroup runs the jobs one after the other. They rarely fail, and a savepoint
// makes SQLite copy every page written after it, so the first failure rolls
// back all.
func runGroup[T Savepointer](tx T, jobs []*groupJob[T]) error {
	for _, j := range jobs {
		err := j.do(tx)
		switch {
		case err == nil:
		case len(jobs) == 1:
			return err
		default:
			return errJobFailed
		}
	}
	return nil
}

// runIsolated is runGroup for a group with a failing job: each job has a
// savepoint.
func runIsolated[T Savepointer](tx T, jobs []*groupJob[T]) (err error) {
	for _, j := range jobs {
		if j.err, err = tx.Savepoint(func() error { return j.do(tx) }); err != nil {
			return err
		}
	}
	return nil
}
