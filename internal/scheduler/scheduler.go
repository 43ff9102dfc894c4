// Package scheduler fires schedules when they are due: it decides about every due time once, and
// hands the executions that follow to the dispatcher.
package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// maxDoze is the maximum sleep of the ticker while a schedule has a next due time. Timers do not
// notice a suspended machine or a changed clock, so the ticker checks the clock this often. A
// check reads one row, however many schedules there are.
const maxDoze = 30 * time.Second

// maxTicks is the number of schedules decided in one transaction: a commit costs more than a
// tick, but other writers must get their turn.
const maxTicks = 100

// overdue is how late a round may begin before the scheduler counts as stuck.
const overdue = 45 * time.Second

// Dispatcher admits and runs the executions of schedules.
type Dispatcher interface {
	// Admissible returns the execution of a firing, not stored yet. With an Invalid error it also
	// returns the incomplete execution, for the record.
	Admissible(f dispatch.Firing, now time.Time) (*agented.Execution, error)
	Stop(id agented.ExecutionID) // stops an execution that was replaced
	Wake()                       // looks for due executions
}

// Options configures a Scheduler.
type Options struct {
	DB         *store.DB
	Dispatcher Dispatcher
	Now        func() time.Time // nil means time.Now
	Zone       *time.Location   // zone of schedules without one; nil means time.Local
	Log        *slog.Logger
	// Ticked is called for every stored decision; lag is the time since the due time. Nil means no
	// calls.
	Ticked func(outcome agented.TickOutcome, lag time.Duration)
}

// Scheduler fires schedules when they are due. Several may run on one database.
type Scheduler struct {
	o     Options
	wake  chan struct{}
	epoch time.Time    // start of the monotonic clock of by
	by    atomic.Int64 // deadline of the next round since epoch; 0 if it sleeps until woken
}

// New returns a scheduler. Run starts it.
func New(o Options) *Scheduler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Zone == nil {
		o.Zone = time.Local
	}
	return &Scheduler{o: o, wake: make(chan struct{}, 1), epoch: time.Now()}
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (s *Scheduler) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// uptime returns the monotonic time since the scheduler was created. It is never 0.
func (s *Scheduler) uptime() time.Duration { return time.Since(s.epoch) + 1 }

// Wake makes the scheduler look again, after a change of schedules.
func (s *Scheduler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Healthy returns an error if the next round is overdue. It uses the monotonic clock, so changes of
// the wall clock have no effect.
func (s *Scheduler) Healthy() error {
	if by := s.by.Load(); by != 0 && s.uptime()-time.Duration(by) > overdue {
		return errors.New("the scheduler is overdue by " + (s.uptime() - time.Duration(by)).Round(time.Second).String())
	}
	return nil
}

// Run fires schedules when they are due, until ctx is cancelled. It sleeps until the first due time;
// without schedules it sleeps until it is woken.
func (s *Scheduler) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := false
	clock := s.now()
	for pause := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		if pause > 0 { // a wake-up must not turn a failing store into a busy loop
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		now := s.now()
		if back := clock.Sub(now); back > onTime {
			s.o.Log.Warn("the clock was set back; due times that have been decided do not fire again", "by", back.Round(time.Second).String())
		}
		clock = now
		wait, some, err := time.Duration(0), true, error(nil)
		if !said {
			if err = s.announce(ctx); err == nil {
				said = true
			}
		}
		if err == nil {
			wait, some, err = s.tickAll(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
			s.o.Log.Error("tick", "err", err, "retry_in", pause.String())
			timer.Reset(0)
			s.by.Store(int64(s.uptime() + pause))
		case some:
			pause = 0
			timer.Reset(wait)
			s.by.Store(int64(s.uptime() + wait))
		default:
			pause = 0
			timer.Stop()
			s.by.Store(0)
		}
	}
}

// zoneSetting is the key of the stored zone that was used for the next due times of schedules
// without a zone.
const zoneSetting = "schedule_zone"

// announceSchedules logs the next due times, after it has updated them if TZ has changed.
func (s *Scheduler) announce(ctx context.Context) error {
	now := s.now()
	name := s.o.Zone.String() + now.In(s.o.Zone).Format(" -0700") // "Local" is not informative
	old, err := s.o.DB.Setting(ctx, zoneSetting)
	if err != nil && agented.KindOf(err) != agented.NotFound {
		return err
	}
	if old != name {
		n, err := s.o.DB.MoveSchedules(ctx, now, func(one agented.Schedule) (due, run time.Time, move bool) {
			table, err := cron.Of(one, s.o.Zone)
			if one.Zone != "" || err != nil {
				return due, run, false
			}
			if due, move = table.Next(now); !move {
				return time.Time{}, time.Time{}, true
			}
			return due, table.Run(due), true
		})
		if err != nil {
			return err
		}
		if err := s.o.DB.SetSetting(ctx, zoneSetting, name); err != nil {
			return err
		}
		if n > 0 {
			s.o.Log.Info("schedules without a zone use the server's", "zone", s.o.Zone.String(), "schedules", n)
		}
	}
	stats, err := s.o.DB.ScheduleStats(ctx)
	if err != nil {
		return err
	}
	next := "none"
	if !stats.NextDue.IsZero() {
		next = stats.NextDue.Format(time.RFC3339)
	}
	s.o.Log.Info("Scheduler service initialized", "schedules", stats.Schedules, "waiting", stats.Waiting, "next_due", next)
	return nil
}

// tickAll decides everything that is due. It returns how long the ticker may sleep, and whether
// any schedule has a next due time.
func (s *Scheduler) tickAll(ctx context.Context) (wait time.Duration, some bool, err error) {
	for {
		now := s.now()
		got, err := s.o.DB.TickDue(ctx, now, maxTicks, func(due store.Due) store.Decision { return s.decide(due, now) })
		if err != nil {
			return 0, true, err
		}
		s.ticked(got)
		if got.Schedules < maxTicks {
			break
		}
	}
	next, ok, err := s.o.DB.NextScheduleRun(ctx)
	if err != nil || !ok {
		return 0, ok, err
	}
	return min(max(next.Sub(s.now()), 0), maxDoze), true, nil
}

// ticked acts on the stored ticks.
func (s *Scheduler) ticked(got store.Ticked) {
	if len(got.Ticks) == 0 {
		return
	}
	s.o.Dispatcher.Wake()
	for _, id := range got.Replaced {
		s.o.Dispatcher.Stop(id)
	}
	stored := s.now()
	counts := map[agented.ScheduleID]int{}
	for _, k := range got.Ticks {
		if s.o.Ticked != nil {
			lag := time.Duration(0)
			if !k.RunAt.IsZero() {
				lag = stored.Sub(k.RunAt)
			}
			s.o.Ticked(k.Outcome, lag)
		}
		if k.Outcome != agented.TickFired {
			counts[k.Schedule]++
		}
		if k.Outcome == agented.TickFired || k.Outcome == agented.TickLate {
			s.o.Log.Info("schedule fired", "schedule", k.Schedule, "trigger", k.Trigger, "execution", k.Execution,
				"due_at", k.DueAt.Format(time.RFC3339), "outcome", k.Outcome)
		}
	}
	for _, k := range got.Ticks { // one line per schedule, because there can be thousands of ticks
		if n := counts[k.Schedule]; n > 0 && k.Outcome != agented.TickFired {
			s.o.Log.Info("due times that did not fire on time", "schedule", k.Schedule, "trigger", k.Trigger,
				"count", n, "first", k.DueAt.Format(time.RFC3339), "outcome", k.Outcome, "reason", k.Reason)
			delete(counts, k.Schedule)
		}
	}
}

// decide converts the decisions about a schedule's due times to the rows of the store.
func (s *Scheduler) decide(due store.Due, now time.Time) store.Decision {
	one := due.Schedule
	table, err := cron.Of(one, s.o.Zone)
	if err != nil {
		// The row is damaged, or this machine does not have its zone. Other schedules must
		// continue; the reason names the problem.
		return store.Decision{Ticks: []store.Decided{{Tick: agented.Tick{
			DueAt: one.NextDue, Outcome: agented.TickMissed,
			Reason: "the schedule cannot be read, and is suspended until it is changed: " + agented.Message(err),
		}}}}
	}
	list, next := decide(one, table, one.NextDue, due.DecidedUntil, now)
	var to store.Decision
	if !next.IsZero() {
		to.NextDue, to.NextRun = next, table.Run(next)
	}
	var standsIn agented.ExecutionID
	for _, v := range list {
		tick := store.Decided{Tick: agented.Tick{DueAt: v.due, Outcome: v.outcome, Reason: v.reason}, RunAt: table.Run(v.due)}
		if v.outcome == agented.TickFired || v.outcome == agented.TickLate {
			e, err := s.o.Dispatcher.Admissible(dispatch.Firing{
				Trigger: due.Trigger, Source: agented.SourceSchedule, Actor: "schedule " + table.Rhythm.String(), Message: one.Message,
			}, now)
			if e != nil {
				e.Cause = &agented.Origin{Kind: agented.SourceSchedule, Schedule: one.ID, DueAt: v.due}
			}
			if err != nil {
				tick.Tick.Outcome, tick.Tick.Reason = agented.TickMissed, "could not be fired: "+agented.Message(err)
				tick.Admission = dispatch.RefusedFiring(e, err)
			} else {
				tick.Admission = &store.Admission{Execution: e, MaxConcurrent: e.Snapshot.MaxConcurrent, Overlap: one.Overlap}
				standsIn = e.ID
			}
		}
		to.Ticks = append(to.Ticks, tick)
	}
	for i := range to.Ticks {
		if to.Ticks[i].Tick.Outcome == agented.TickCoalesced {
			to.Ticks[i].Tick.Execution = standsIn
		}
	}
	return to
}
