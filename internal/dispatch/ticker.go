package dispatch

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/store"
)

// maxDoze bounds how long the ticker sleeps while a schedule has something to
// come. Timers do not notice that the machine was suspended or that its clock
// was set, so the ticker looks at the clock this often. It costs one read of
// one row, however many schedules there are.
const maxDoze = 30 * time.Second

// maxTicks is how many schedules are decided in one transaction: many, because
// a commit costs more than a tick, and not all, because others want to write.
const maxTicks = 100

// WakeSchedules tells the ticker that schedules may have changed.
func (d *Dispatcher) WakeSchedules() {
	select {
	case d.wakeTick <- struct{}{}:
	default:
	}
}

// tickLoop fires schedules when they are due. It sleeps until the first of them
// is; without schedules it sleeps until it is woken.
func (d *Dispatcher) tickLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := false
	clock := d.now()
	for pause := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return errDraining
		case <-d.wakeTick:
		case <-timer.C:
		}
		if pause > 0 { // a wake-up must not turn a failing store into a busy loop
			select {
			case <-ctx.Done():
				return errDraining
			case <-time.After(pause):
			}
		}
		now := d.now()
		if back := clock.Sub(now); back > onTime {
			d.o.Log.Warn("the clock was set back; due times that have been decided do not fire again", "by", back.Round(time.Second).String())
		}
		clock = now
		wait, some, err := time.Duration(0), true, error(nil)
		if !said {
			if err = d.announceSchedules(ctx); err == nil {
				said = true
			}
		}
		if err == nil {
			wait, some, err = d.tickAll(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return errDraining
		case err != nil:
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
			d.o.Log.Error("tick", "err", err, "retry_in", pause.String())
			timer.Reset(0)
			d.tickBy.Store(time.Now().Add(pause).UnixNano())
		case some:
			pause = 0
			timer.Reset(wait)
			d.tickBy.Store(time.Now().Add(wait).UnixNano())
		default:
			pause = 0
			timer.Stop()
			d.tickBy.Store(0)
		}
	}
}

// zoneSetting is where the store keeps the zone in which the next due times of
// schedules without a zone of their own were worked out.
const zoneSetting = "schedule_zone"

// announceSchedules says what is to come, after a look whether TZ is still what
// it was.
func (d *Dispatcher) announceSchedules(ctx context.Context) error {
	now := d.now()
	name := d.o.Zone.String() + now.In(d.o.Zone).Format(" -0700") // "Local" says little
	old, err := d.o.DB.Setting(ctx, zoneSetting)
	if err != nil && agented.KindOf(err) != agented.NotFound {
		return err
	}
	if old != name {
		n, err := d.o.DB.MoveSchedules(ctx, now, func(s agented.Schedule) (due, run time.Time, move bool) {
			table, err := cron.Of(s, d.o.Zone)
			if s.Zone != "" || err != nil {
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
		if err := d.o.DB.SetSetting(ctx, zoneSetting, name); err != nil {
			return err
		}
		if n > 0 {
			d.o.Log.Info("schedules without a zone follow the server's", "zone", d.o.Zone.String(), "schedules", n)
		}
	}
	stats, err := d.o.DB.ScheduleStats(ctx)
	if err != nil {
		return err
	}
	next := "none"
	if !stats.NextDue.IsZero() {
		next = stats.NextDue.Format(time.RFC3339)
	}
	d.o.Log.Info("Scheduler service initialized", "schedules", stats.Schedules, "waiting", stats.Waiting, "next_due", next)
	return nil
}

// tickAll decides everything that is due and returns how long the ticker may
// sleep, and whether any schedule has something to come at all.
func (d *Dispatcher) tickAll(ctx context.Context) (wait time.Duration, some bool, err error) {
	for {
		now := d.now()
		got, err := d.o.DB.TickDue(ctx, now, maxTicks, func(due store.Due) store.Decision { return d.decide(due, now) })
		if err != nil {
			return 0, true, err
		}
		d.ticked(got)
		if got.Schedules < maxTicks {
			break
		}
	}
	next, ok, err := d.o.DB.NextScheduleRun(ctx)
	if err != nil || !ok {
		return 0, ok, err
	}
	return min(max(next.Sub(d.now()), 0), maxDoze), true, nil
}

// ticked acts on what was stored.
func (d *Dispatcher) ticked(got store.Ticked) {
	if len(got.Ticks) == 0 {
		return
	}
	d.Wake()
	for _, id := range got.Replaced {
		d.stop(id)
	}
	stored := d.now()
	counts := map[agented.ScheduleID]int{}
	for _, k := range got.Ticks {
		if d.o.Observe.Ticked != nil {
			lag := time.Duration(0)
			if !k.RunAt.IsZero() {
				lag = stored.Sub(k.RunAt)
			}
			d.o.Observe.Ticked(k.Outcome, lag)
		}
		if k.Outcome != agented.TickFired {
			counts[k.Schedule]++
		}
		if k.Outcome == agented.TickFired || k.Outcome == agented.TickLate {
			d.o.Log.Info("schedule fired", "schedule", k.Schedule, "trigger", k.Trigger, "execution", k.Execution,
				"due_at", k.DueAt.Format(time.RFC3339), "outcome", k.Outcome)
		}
	}
	for _, k := range got.Ticks { // one line a schedule: there can be thousands of ticks
		if n := counts[k.Schedule]; n > 0 && k.Outcome != agented.TickFired {
			d.o.Log.Info("due times that did not fire on time", "schedule", k.Schedule, "trigger", k.Trigger,
				"count", n, "first", k.DueAt.Format(time.RFC3339), "outcome", k.Outcome, "reason", k.Reason)
			delete(counts, k.Schedule)
		}
	}
}

// decide turns the verdicts about a schedule's due times into what the store
// writes.
func (d *Dispatcher) decide(due store.Due, now time.Time) store.Decision {
	s := due.Schedule
	table, err := cron.Of(s, d.o.Zone)
	if err != nil {
		// Only a damaged row, or a zone that this machine no longer knows. It
		// must not stop the others; the reason says where to look.
		return store.Decision{Ticks: []store.Decided{{Tick: agented.Tick{
			DueAt: s.NextDue, Outcome: agented.TickMissed,
			Reason: "the schedule cannot be read, and is at rest until it is changed: " + agented.Message(err),
		}}}}
	}
	list, next := decide(s, table, s.NextDue, due.DecidedUntil, now)
	var to store.Decision
	if !next.IsZero() {
		to.NextDue, to.NextRun = next, table.Run(next)
	}
	var standsIn agented.ExecutionID
	for _, v := range list {
		one := store.Decided{Tick: agented.Tick{DueAt: v.due, Outcome: v.outcome, Reason: v.reason}, RunAt: table.Run(v.due)}
		if v.outcome == agented.TickFired || v.outcome == agented.TickLate {
			e, err := d.admissible(Firing{
				Trigger: due.Trigger, Source: agented.SourceSchedule, Actor: "schedule " + table.Rhythm.String(), Message: s.Message,
			}, now)
			if err != nil {
				one.Tick.Outcome, one.Tick.Reason = agented.TickMissed, "could not be fired: "+agented.Message(err)
			} else {
				e.Cause = &agented.Origin{Kind: agented.SourceSchedule, Schedule: s.ID, DueAt: v.due}
				one.Admission = &store.Admission{Execution: e, MaxConcurrent: e.Snapshot.MaxConcurrent, Overlap: s.Overlap}
				standsIn = e.ID
			}
		}
		to.Ticks = append(to.Ticks, one)
	}
	for i := range to.Ticks {
		if to.Ticks[i].Tick.Outcome == agented.TickCoalesced {
			to.Ticks[i].Tick.Execution = standsIn
		}
	}
	return to
}
