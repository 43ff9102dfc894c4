package store

import (
	"context"
	"slices"
	"time"

	"github.com/agented/agented"
)

// Day is the results of the executions that were created in a time span.
type Day struct {
	From, To time.Time // To is exclusive
	Counts   map[agented.State]int64
	Median   time.Duration // of the latest maxDurations successful ones; zero if there are none
	P95      time.Duration
}

// maxDurations limits how many rows the durations of a day are computed from.
const maxDurations = 400

// Days counts the executions created in each of the spans between two adjacent
// times of at, which is ascending.
func (db *DB) Days(ctx context.Context, at []time.Time) ([]Day, error) {
	var out []Day
	err := db.read(ctx, "days", func(r *reader) error {
		for i := 1; i < len(at); i++ {
			d, err := day(r, at[i-1], at[i])
			if err != nil {
				return err
			}
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

// One query per status uses only one index, which contains all counted columns.
const (
	dayCount     = `SELECT COUNT(*) FROM execution WHERE status = $1 AND created_at >= $2 AND created_at < $3`
	dayDurations = `SELECT finished_at - started_at FROM execution WHERE status = 'success' AND created_at >= $1 AND created_at < $2
		ORDER BY created_at DESC, id DESC LIMIT $3`
)

func day(r *reader, from, to time.Time) (Day, error) {
	d := Day{From: from, To: to, Counts: map[agented.State]int64{}}
	for _, s := range agented.States {
		var n int64
		if err := r.row(dayCount, s, micros(from), micros(to)).Scan(&n); err != nil {
			return d, err
		}
		if n > 0 {
			d.Counts[s] = n
		}
	}
	if d.Counts[agented.StateSuccess] == 0 {
		return d, nil
	}
	rows, err := r.query(dayDurations, micros(from), micros(to), maxDurations)
	took, err := collect(rows, err, func(v *int64, scan func(...any) error) error {
		var us *int64
		if err := scan(&us); err != nil || us == nil {
			return err
		}
		*v = *us
		return nil
	})
	if err != nil || len(took) == 0 {
		return d, err
	}
	slices.Sort(took)
	d.Median = time.Duration(took[len(took)/2]) * time.Microsecond
	d.P95 = time.Duration(took[min(len(took)*95/100, len(took)-1)]) * time.Microsecond
	return d, nil
}

// Running returns up to limit running executions, oldest first.
func (db *DB) Running(ctx context.Context, limit int) ([]agented.Execution, error) {
	return db.standing(ctx, agented.StateRunning, limit)
}

// Waiting returns up to limit pending executions, oldest first.
func (db *DB) Waiting(ctx context.Context, limit int) ([]agented.Execution, error) {
	return db.standing(ctx, agented.StatePending, limit)
}

const standingIDs = `SELECT id FROM execution WHERE status = $1 ORDER BY created_at, id LIMIT $2`

func (db *DB) standing(ctx context.Context, s agented.State, limit int) ([]agented.Execution, error) {
	var list []agented.Execution
	err := db.read(ctx, "standing", func(r *reader) error {
		rows, err := r.query(standingIDs, s, limit)
		ids, err := collect(rows, err, scanID)
		if err != nil {
			return err
		}
		list, err = loadBrief(r, ids)
		return err
	})
	return list, err
}

// NextRun is the next time a schedule fires its trigger.
type NextRun struct {
	Trigger     agented.TriggerID
	TriggerName string
	At          time.Time
}

const nextRuns = `SELECT s.trigger_id, t.name, s.next_run FROM schedule s JOIN trigger_ t ON t.id = s.trigger_id
	WHERE s.next_run IS NOT NULL ORDER BY s.next_run, s.id LIMIT $1`

// NextRuns returns up to limit schedules in order of their next run.
func (db *DB) NextRuns(ctx context.Context, limit int) ([]NextRun, error) {
	var list []NextRun
	err := db.read(ctx, "next runs", func(r *reader) error {
		rows, err := r.query(nextRuns, limit)
		list, err = collect(rows, err, func(v *NextRun, scan func(...any) error) error {
			return scan(&v.Trigger, &v.TriggerName, toTime{&v.At})
		})
		return err
	})
	return list, err
}

// Bytes returns the size of the database in bytes, with its write-ahead log if that
// is a file next to it.
func (db *DB) Bytes(ctx context.Context) (int64, error) {
	n, err := db.engine.Size(ctx)
	return n, explain("size of the database", err)
}
