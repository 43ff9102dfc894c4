package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/store"
)

// maxPreview bounds the runs of a preview.
const maxPreview = 50

// ScheduleView is a schedule as the API shows it. What is not set is left out.
type ScheduleView struct {
	ID            agented.ScheduleID `json:"id" example:"sch-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Cron          string             `json:"cron,omitempty" doc:"Five cron fields, or @hourly and the like"`
	Every         string             `json:"every,omitempty" doc:"A period of elapsed time, counted from anchor"`
	Anchor        *time.Time         `json:"anchor,omitempty"`
	At            *time.Time         `json:"at,omitempty" doc:"Once, at this time"`
	Zone          string             `json:"zone" doc:"IANA name of the time zone; empty: the server's"`
	Missed        agented.Missed     `json:"missed" enum:"latest,all,skip"`
	MissedLimit   int                `json:"missed_limit"`
	WindowSeconds int                `json:"window_seconds"`
	JitterSeconds int                `json:"jitter_seconds"`
	StartAt       *time.Time         `json:"start_at,omitempty"`
	EndAt         *time.Time         `json:"end_at,omitempty"`
	Overlap       agented.Overlap    `json:"overlap" enum:"queue,skip,replace"`
	Message       string             `json:"message,omitempty"`
	Enabled       bool               `json:"enabled"`
	Description   string             `json:"description" doc:"When it is due, in words"`
	NextDueAt     *time.Time         `json:"next_due_at,omitempty" doc:"The next due time; left out when nothing is to come"`
	NextRunAt     *time.Time         `json:"next_run_at,omitempty" doc:"The same with its jitter: when it will fire"`
}

func (s *Server) showSchedule(ctx context.Context, c *agented.Schedule) ScheduleView {
	v := ScheduleView{
		ID: c.ID, Cron: c.Cron, Every: c.Every, Anchor: known(c.Anchor), At: known(c.At), Zone: c.Zone,
		Missed: c.Missed, MissedLimit: c.MissedLimit, WindowSeconds: c.WindowSeconds, JitterSeconds: c.JitterSeconds,
		StartAt: known(c.StartAt), EndAt: known(c.EndAt), Overlap: c.Overlap, Message: c.Message, Enabled: c.Enabled,
		NextDueAt: known(c.NextDue), NextRunAt: known(c.NextRun),
	}
	if !principal(ctx).May(agented.RoleAdmin) {
		v.Message = s.mask(v.Message)
	}
	if table, err := cron.Of(*c, s.zone()); err == nil {
		v.Description = table.Rhythm.Describe()
	}
	return v
}

// showSchedules is a trigger's list with the first of their next runs.
func (s *Server) showSchedules(ctx context.Context, t *agented.Trigger) (views []ScheduleView, next *time.Time) {
	views = make([]ScheduleView, len(t.Schedules))
	for i := range t.Schedules {
		views[i] = s.showSchedule(ctx, &t.Schedules[i])
		if at := views[i].NextRunAt; at != nil && (next == nil || at.Before(*next)) {
			next = at
		}
	}
	return views, next
}

// zone is that of schedules that name none.
func (s *Server) zone() *time.Location {
	if z := s.o.Config.Zone; z != nil { // a reload does not change it: the ticker has it too
		return z
	}
	return time.Local
}

// ScheduleFields is a schedule in requests. Fields that are left out have their
// defaults.
type ScheduleFields struct {
	ID            optional[agented.ScheduleID] `json:"id,omitzero" doc:"Which of the trigger's schedules this is. Left out: the one that asks for the same, or a new one"`
	Cron          optional[string]             `json:"cron,omitzero" doc:"One of cron, every and at is needed. Five cron fields (minute hour day-of-month month day-of-week, 0 and 7 are Sunday), @hourly, @daily, @weekly, @monthly or @yearly"`
	Every         optional[string]             `json:"every,omitzero" doc:"A period of elapsed time such as 15m, 1h30m or 2d"`
	Anchor        optional[time.Time]          `json:"anchor,omitzero" doc:"Where every counts from. Default: when the schedule is made"`
	At            optional[string]             `json:"at,omitzero" doc:"Once: 2030-01-31T09:00:00Z, or 2030-01-31 09:00 on the clock of the zone"`
	Zone          optional[string]             `json:"zone,omitzero" doc:"IANA name such as Europe/Berlin. Default: the server's TZ"`
	Missed        optional[agented.Missed]     `json:"missed,omitzero" doc:"What becomes of due times that passed while the server was away: latest (default, one late run), all (each, up to missed_limit) or skip"`
	MissedLimit   optional[int]                `json:"missed_limit,omitzero" doc:"Of missed all: 1 to 1000, default 10"`
	WindowSeconds optional[int]                `json:"window_seconds,omitzero" doc:"How late a missed run still counts; 0 is for ever. Default 86400"`
	JitterSeconds optional[int]                `json:"jitter_seconds,omitzero" doc:"Fire up to so much later, always the same for the same due time. Default 0"`
	StartAt       optional[time.Time]          `json:"start_at,omitzero" doc:"Not due before this time"`
	EndAt         optional[time.Time]          `json:"end_at,omitzero" doc:"Not due after this time"`
	Overlap       optional[agented.Overlap]    `json:"overlap,omitzero" doc:"While an earlier execution of the trigger has not ended: skip (default; queue with missed all), queue or replace"`
	Message       optional[string]             `json:"message,omitzero" doc:"Fills {message} in the prompt"`
	Enabled       optional[bool]               `json:"enabled,omitzero" doc:"Default true"`
}

// schedule is what the fields ask for; local is the zone of one that names
// none. The fields of the answer that cannot stand are returned, too.
func (f *ScheduleFields) schedule(local *time.Location) (agented.Schedule, []agented.Field) {
	s := agented.Schedule{Enabled: true, WindowSeconds: agented.DefaultWindowSeconds, MissedLimit: agented.DefaultMissedLimit}
	f.ID.into(&s.ID, "")
	f.Cron.into(&s.Cron, "")
	f.Every.into(&s.Every, "")
	f.Anchor.into(&s.Anchor, time.Time{})
	f.Zone.into(&s.Zone, "")
	f.Missed.into(&s.Missed, "")
	f.MissedLimit.into(&s.MissedLimit, agented.DefaultMissedLimit)
	f.WindowSeconds.into(&s.WindowSeconds, agented.DefaultWindowSeconds)
	f.JitterSeconds.into(&s.JitterSeconds, 0)
	f.StartAt.into(&s.StartAt, time.Time{})
	f.EndAt.into(&s.EndAt, time.Time{})
	f.Overlap.into(&s.Overlap, "")
	f.Message.into(&s.Message, "")
	f.Enabled.into(&s.Enabled, true)
	s.Cron, s.Every, s.Zone = strings.Join(strings.Fields(s.Cron), " "), strings.TrimSpace(s.Every), strings.TrimSpace(s.Zone)
	zero := f.MissedLimit.set && !f.MissedLimit.null && s.MissedLimit == 0
	s = s.WithDefaults()
	if zero {
		s.MissedLimit = 0 // is refused, and not the default
	}
	for _, at := range []*time.Time{&s.Anchor, &s.StartAt, &s.EndAt} {
		if !at.IsZero() {
			*at = at.UTC().Truncate(time.Second)
		}
	}
	var bad []agented.Field
	if text := strings.TrimSpace(f.At.value); f.At.set && text != "" {
		zone := local
		if z, err := cron.LoadZone(s.Zone); err == nil {
			zone = z
		}
		once, err := cron.Parse("once " + text)
		if at, ok := once.Next(time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), zone); err == nil && ok {
			s.At = at.UTC()
		} else {
			s.At = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC) // so that it does not count as missing
			bad = append(bad, agented.Field{Path: "at", Text: fmt.Sprintf("%q is not a time: write 2030-01-31T09:00:00Z, 2030-01-31T09:00:00+01:00, or 2030-01-31 09:00 for the clock of the zone", clip(text, 60))})
		}
	}
	_, err := cron.Of(s, local)
	if e, ok := err.(*agented.Error); ok {
		bad = append(bad, e.Fields...)
	}
	return s, bad
}

// applySchedules gives a trigger the schedules of a request, and the trigger's
// schedules their next due times where they have to be worked out anew. was is
// the trigger as it is stored; nil for a new one. What did not change is left
// exactly as it was.
func (s *Server) applySchedules(t, was *agented.Trigger, f optional[[]ScheduleFields]) error {
	now := s.now()
	if was == nil {
		was = &agented.Trigger{}
	}
	if f.set {
		list, err := mergeSchedules(was.Schedules, f.value, s.zone(), now)
		if err != nil {
			return err
		}
		t.Schedules = list
	} else {
		t.Schedules = append([]agented.Schedule(nil), was.Schedules...)
	}
	before := map[agented.ScheduleID]agented.Schedule{}
	for _, c := range was.Schedules {
		before[c.ID] = c
	}
	var bad []agented.Field
	for i := range t.Schedules {
		c := &t.Schedules[i]
		old, known := before[c.ID]
		if known && old == *c && t.Enabled == was.Enabled {
			continue
		}
		c.NextDue, c.NextRun = time.Time{}, time.Time{}
		table, err := cron.Of(*c, s.zone())
		if err != nil || !t.Enabled || !c.Enabled {
			continue
		}
		due, ok := table.Next(now)
		switch {
		case ok:
			c.NextDue, c.NextRun = due, table.Run(due)
		case !known && !c.At.IsZero() && !c.At.After(now):
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.at", i), Text: "has passed: give a time to come"})
		case !known:
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.end_at", i), Text: "leaves no due time to come: give a later one, or remove it"})
		}
	}
	return agented.InvalidFields(bad)
}

// mergeSchedules makes the list that a request asks for out of the one that is
// there: what asks for the same keeps its id and its state.
func mergeSchedules(was []agented.Schedule, wanted []ScheduleFields, local *time.Location, now time.Time) ([]agented.Schedule, error) {
	if len(wanted) > agented.MaxSchedules {
		return nil, agented.InvalidFields([]agented.Field{{Path: "schedules", Text: fmt.Sprintf("has too many items: use at most %d for one trigger", agented.MaxSchedules)}})
	}
	left := map[agented.ScheduleID]agented.Schedule{}
	for _, c := range was {
		left[c.ID] = c
	}
	var bad []agented.Field
	list := make([]agented.Schedule, 0, len(wanted))
	for i := range wanted {
		c, wrong := wanted[i].schedule(local)
		for _, f := range wrong {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.%s", i, f.Path), Text: f.Text})
		}
		if c.ID != "" {
			old, ok := left[c.ID]
			if !ok {
				bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.id", i), Text: "is not the id of a schedule of this trigger, or is there twice: leave it out to add a schedule"})
			}
			delete(left, c.ID)
			switch {
			case old.Same(c):
				c = old
			case c.Every == old.Every && c.Anchor.IsZero():
				c.Anchor = old.Anchor
			}
		}
		list = append(list, c)
	}
	if len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	for i := range list {
		c := &list[i]
		if c.ID != "" {
			continue
		}
		for _, old := range was {
			if _, free := left[old.ID]; free && old.Same(*c) {
				*c = old
				delete(left, old.ID)
				break
			}
		}
		if c.ID == "" {
			c.ID = agented.ScheduleID(agented.NewID("sch", now))
		}
		if c.Every != "" && c.Anchor.IsZero() {
			c.Anchor = now.Truncate(time.Second)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, nil
}

// ScheduleItem is a schedule in a list over all triggers.
type ScheduleItem struct {
	ScheduleView
	TriggerID      agented.TriggerID `json:"trigger_id"`
	TriggerName    string            `json:"trigger_name"`
	TriggerEnabled bool              `json:"trigger_enabled" doc:"Schedules of a trigger that is disabled are at rest"`
}

type scheduleListInput struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor    string `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
	TriggerID string `query:"trigger_id" maxLength:"100" doc:"Only those of this trigger"`
}

func (s *Server) listSchedules(ctx context.Context, in *scheduleListInput) (*listOutput[ScheduleItem], error) {
	items, next, err := s.o.DB.Schedules(ctx, agented.TriggerID(in.TriggerID), store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, func(c *store.ScheduleOf) ScheduleItem {
		return ScheduleItem{ScheduleView: s.showSchedule(ctx, &c.Schedule), TriggerID: c.Trigger, TriggerName: c.TriggerName, TriggerEnabled: c.TriggerEnabled}
	}), nil
}

// SchedulePreview asks when a schedule would be due.
type SchedulePreview struct {
	ScheduleFields
	Count int       `json:"count,omitempty" minimum:"1" maximum:"50" doc:"How many runs to list. Default 10"`
	After time.Time `json:"after,omitzero" doc:"Where to begin. Default: now"`
}

// PreviewView is when a schedule is due.
type PreviewView struct {
	Description string    `json:"description" doc:"When it is due, in words"`
	Zone        string    `json:"zone" doc:"The zone that it goes by"`
	Runs        []RunView `json:"runs" doc:"The earliest first; fewer than asked for when it ends before"`
}

// RunView is one due time of a preview.
type RunView struct {
	DueAt       time.Time        `json:"due_at" doc:"In UTC"`
	Local       string           `json:"local" doc:"On the clock of the zone, with its offset" example:"2030-03-31T03:00:00+02:00"`
	Weekday     string           `json:"weekday" doc:"In the zone"`
	RunAt       *time.Time       `json:"run_at,omitempty" doc:"With its jitter; left out without jitter, and for a schedule that has no id yet"`
	ClockChange *ClockChangeView `json:"clock_change,omitempty" doc:"Set when the clock of the zone changes on that day"`
}

// ClockChangeView is a change of a zone's clock.
type ClockChangeView struct {
	At     time.Time `json:"at" doc:"In UTC"`
	Before string    `json:"offset_before" example:"+01:00"`
	After  string    `json:"offset_after" example:"+02:00"`
	Text   string    `json:"text" doc:"What it means for this run"`
}

func (s *Server) previewSchedule(_ context.Context, in *createInput[SchedulePreview]) (*output[PreviewView], error) {
	c, bad := in.Body.schedule(s.zone())
	now := s.now()
	if c.Every != "" && c.Anchor.IsZero() {
		c.Anchor = now.Truncate(time.Second)
	}
	if len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	table, err := cron.Of(c, s.zone())
	if err != nil {
		return nil, err
	}
	after := in.Body.After
	if after.IsZero() {
		after = now
	}
	count := in.Body.Count
	if count == 0 {
		count = 10
	}
	out := &output[PreviewView]{PreviewView{Description: table.Rhythm.Describe(), Zone: table.Zone.String(), Runs: []RunView{}}}
	for _, r := range table.Preview(after, min(count, maxPreview)) {
		v := RunView{DueAt: shown(r.At), Local: r.At.Format(time.RFC3339), Weekday: r.At.Weekday().String()}
		if c.ID != "" && c.JitterSeconds > 0 {
			v.RunAt = known(table.Run(r.At))
		}
		if r.Clock != nil {
			v.ClockChange = &ClockChangeView{At: shown(r.Clock.At), Before: offset(r.Clock.Before), After: offset(r.Clock.After), Text: r.Clock.Text}
		}
		out.Body.Runs = append(out.Body.Runs, v)
	}
	return out, nil
}

// offset writes a zone's distance from UTC.
func offset(d time.Duration) string {
	return time.Unix(0, 0).In(time.FixedZone("", int(d/time.Second))).Format("-07:00")
}

// TickView is what was done about one due time of a schedule.
type TickView struct {
	ScheduleID  agented.ScheduleID   `json:"schedule_id"`
	TriggerID   agented.TriggerID    `json:"trigger_id"`
	DueAt       time.Time            `json:"due_at"`
	Outcome     agented.TickOutcome  `json:"outcome" enum:"fired,late,coalesced,skipped,missed"`
	Reason      string               `json:"reason" doc:"One sentence; empty for one that fired on time"`
	ExecutionID *agented.ExecutionID `json:"execution_id" nullable:"true" doc:"The execution that it fired; of a coalesced one the late run that stands for it, of a skipped one the cancelled execution that says so"`
	DecidedAt   time.Time            `json:"decided_at"`
}

func viewTick(k *agented.Tick) TickView {
	v := TickView{ScheduleID: k.Schedule, TriggerID: k.Trigger, DueAt: shown(k.DueAt), Outcome: k.Outcome, Reason: k.Reason, DecidedAt: shown(k.DecidedAt)}
	if k.Execution != "" {
		v.ExecutionID = &k.Execution
	}
	return v
}

// TickQuery narrows a list of ticks.
type TickQuery struct {
	Limit      int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor     string    `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
	ScheduleID string    `query:"schedule_id" maxLength:"100" doc:"Only those of this schedule"`
	Outcome    string    `query:"outcome" enum:"fired,late,coalesced,skipped,missed" doc:"Only those with this outcome"`
	DueAfter   time.Time `query:"due_after" doc:"Only those due at this time or later"`
	DueBefore  time.Time `query:"due_before" doc:"Only those due before this time"`
}

type tickListInput struct {
	TickQuery
	TriggerID string `query:"trigger_id" maxLength:"100" doc:"Only those of this trigger"`
}

type triggerTicksInput struct {
	ID string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	TickQuery
}

func (s *Server) listTicks(ctx context.Context, in *tickListInput) (*listOutput[TickView], error) {
	return s.ticks(ctx, agented.TriggerID(in.TriggerID), in.TickQuery)
}

func (s *Server) listTriggerTicks(ctx context.Context, in *triggerTicksInput) (*listOutput[TickView], error) {
	t, err := s.trigger(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.ticks(ctx, t.ID, in.TickQuery)
}

func (s *Server) ticks(ctx context.Context, trigger agented.TriggerID, f TickQuery) (*listOutput[TickView], error) {
	items, next, err := s.o.DB.Ticks(ctx, store.TickFilter{
		Schedule: agented.ScheduleID(f.ScheduleID), Trigger: trigger, Outcome: agented.TickOutcome(f.Outcome),
		DueAfter: f.DueAfter, DueBefore: f.DueBefore,
	}, store.Page{Limit: f.Limit, Cursor: f.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, viewTick), nil
}
