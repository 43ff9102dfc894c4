package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
)

const scheduleColumns = `id, spec, next_due, next_run`

// scanSchedule reads the columns above. A spec that cannot be read leaves
// everything but the id and the times empty: one damaged row must not keep the
// others from running.
func scanSchedule(s *agented.Schedule, scan func(...any) error) error {
	var id agented.ScheduleID
	var spec []byte
	var due, run time.Time
	if err := scan(&id, &spec, toTime{&due}, toTime{&run}); err != nil {
		return err
	}
	if err := json.Unmarshal(spec, s); err != nil {
		*s = agented.Schedule{}
	}
	s.ID, s.NextDue, s.NextRun = id, due, run
	return nil
}

// scheduleSpec is what is stored of a schedule's own words: equal text means
// that nothing changed.
func scheduleSpec(s agented.Schedule) (string, error) {
	s.ID = ""
	for _, at := range []*time.Time{&s.Anchor, &s.At, &s.StartAt, &s.EndAt} {
		*at = stored(*at)
	}
	text, err := json.Marshal(s)
	return string(text), err
}

// setSchedules makes the trigger's schedules those of t.Schedules. One that is
// as it was, and was enabled as it is, keeps its next due time, which the
// ticker may have moved since the caller read it; the others get the one that
// the caller worked out. Empty ids are filled in, and t gets what is stored.
func (tx *tx) setSchedules(t *agented.Trigger, now time.Time) error {
	type row struct {
		agented.Schedule
		spec    string
		enabled bool
		place   int
	}
	rows, err := tx.query(`SELECT id, spec, enabled, place, next_due, next_run FROM schedule WHERE trigger_id = $1`, t.ID)
	list, err := collect(rows, err, func(r *row, scan func(...any) error) error {
		return scan(&r.ID, &r.spec, &r.enabled, &r.place, toTime{&r.NextDue}, toTime{&r.NextRun})
	})
	if err != nil {
		return err
	}
	old := map[agented.ScheduleID]row{}
	for _, r := range list {
		old[r.ID] = r
	}
	for i := range t.Schedules {
		s := &t.Schedules[i]
		on := t.Enabled && s.Enabled // the trigger's switch is part of the row's
		if !on {
			s.NextDue, s.NextRun = time.Time{}, time.Time{}
		}
		spec, err := scheduleSpec(*s)
		if err != nil {
			return err
		}
		r, known := old[s.ID]
		switch {
		case !known:
			if s.ID == "" {
				s.ID = agented.ScheduleID(agented.NewID("sch", now))
			}
			err = tx.exec(`INSERT INTO schedule (id, trigger_id, place, spec, enabled, next_due, next_run, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, s.ID, t.ID, i, spec, on, micros(s.NextDue), micros(s.NextRun), micros(now))
			if duplicate(err) {
				return agented.InvalidFields([]agented.Field{{
					Path: fmt.Sprintf("schedules.%d.id", i), Text: "belongs to another schedule: leave it out to add a schedule",
				}})
			}
		case r.spec != spec || r.enabled != on:
			err = tx.exec(`UPDATE schedule SET place = $2, spec = $3, enabled = $4, next_due = $5, next_run = $6 WHERE id = $1`,
				s.ID, i, spec, on, micros(s.NextDue), micros(s.NextRun))
		default:
			s.NextDue, s.NextRun = r.NextDue, r.NextRun
			if r.place != i {
				err = tx.exec(`UPDATE schedule SET place = $2 WHERE id = $1`, s.ID, i)
			}
		}
		if err != nil {
			return err
		}
		delete(old, s.ID)
	}
	for id := range old {
		if err := tx.exec(`DELETE FROM schedule WHERE id = $1`, id); err != nil {
			return err
		}
	}
	return nil
}

// loadSchedules fills in the schedules of triggers with one query.
func loadSchedules(q querier, list []agented.Trigger) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.TriggerID]int, len(list))
	var ids []agented.TriggerID
	for i := range list {
		place[list[i].ID] = i
		ids = append(ids, list[i].ID)
	}
	var w where
	rows, err := q.query(`SELECT trigger_id, `+scheduleColumns+` FROM schedule WHERE trigger_id IN `+in(&w, ids)+` ORDER BY trigger_id, place`, w.args...)
	_, err = collect(rows, err, func(_ *struct{}, scan func(...any) error) error {
		var id agented.TriggerID
		var s agented.Schedule
		err := scanSchedule(&s, func(to ...any) error { return scan(append([]any{&id}, to...)...) })
		if err == nil {
			t := &list[place[id]]
			t.Schedules = append(t.Schedules, s)
		}
		return err
	})
	return err
}

// ScheduleOf is a schedule with the trigger that it fires.
type ScheduleOf struct {
	agented.Schedule
	Trigger        agented.TriggerID
	TriggerName    string
	TriggerEnabled bool
}

// Schedules returns a page of all schedules, and the cursor of the next page,
// empty when there is none. They are in the order in which they were made.
func (db *DB) Schedules(ctx context.Context, trigger agented.TriggerID, p Page) ([]ScheduleOf, string, error) {
	after, err := p.after("schedule", 1)
	if err != nil {
		return nil, "", err
	}
	var w where
	if after != nil {
		w.and(`s.id > $?`, after[0])
	}
	if trigger != "" {
		w.and(`s.trigger_id = $?`, trigger)
	}
	limit := p.limit()
	rows, err := db.r.QueryContext(ctx, `SELECT s.trigger_id, t.name, t.enabled, s.id, s.spec, s.next_due, s.next_run
		FROM schedule s JOIN trigger_ t ON t.id = s.trigger_id`+w.sql()+` ORDER BY s.id LIMIT `+fmt.Sprint(limit+1), w.args...)
	list, err := collect(rows, err, func(s *ScheduleOf, scan func(...any) error) error {
		return scanSchedule(&s.Schedule, func(to ...any) error {
			return scan(append([]any{&s.Trigger, &s.TriggerName, &s.TriggerEnabled}, to...)...)
		})
	})
	if err != nil {
		return nil, "", db.explain("schedules", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("schedule", string(list[limit-1].ID)), nil
}

// ScheduleStats is how many schedules there are and when the first of them is
// due.
type ScheduleStats struct {
	Schedules int64     // all of them
	Waiting   int64     // those that have a next due time
	NextDue   time.Time // the earliest of these; zero when there is none
}

// ScheduleStats counts the schedules.
func (db *DB) ScheduleStats(ctx context.Context) (ScheduleStats, error) {
	var s ScheduleStats
	err := db.r.QueryRowContext(ctx, `SELECT COUNT(*), COUNT(next_run), MIN(next_due) FROM schedule`).Scan(&s.Schedules, &s.Waiting, toTime{&s.NextDue})
	return s, db.explain("schedules", err)
}

// NextScheduleRun is when the first schedule has to be looked at, false when
// none has anything to come.
func (db *DB) NextScheduleRun(ctx context.Context) (time.Time, bool, error) {
	var at time.Time
	err := db.r.QueryRowContext(ctx, `SELECT MIN(next_run) FROM schedule WHERE next_run IS NOT NULL`).Scan(toTime{&at})
	return at, !at.IsZero(), db.explain("next schedule", err)
}

// MoveSchedules gives each schedule for which next answers true other next
// times, unless it is due at now: what has come is decided first. Schedules
// without a next time are left alone. It returns how many it moved.
func (db *DB) MoveSchedules(ctx context.Context, now time.Time, next func(agented.Schedule) (due, run time.Time, move bool)) (int, error) {
	moved := 0
	err := db.write(ctx, "move schedules", func(tx *tx) error {
		rows, err := tx.query(`SELECT `+scheduleColumns+` FROM schedule WHERE next_run > $1`, micros(now))
		list, err := collect(rows, err, scanSchedule)
		if err != nil {
			return err
		}
		for _, s := range list {
			due, run, move := next(s)
			if !move {
				continue
			}
			if err := tx.exec(`UPDATE schedule SET next_due = $2, next_run = $3 WHERE id = $1`, s.ID, micros(due), micros(run)); err != nil {
				return err
			}
			moved++
		}
		return nil
	})
	return moved, err
}
