package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/store"
)

// maxPreview limits the runs of a preview.
const maxPreview = 50

// schedules handles the requests about schedules and their ticks.
type schedules struct {
	db   *store.DB
	zone *time.Location // of schedules that name none; a reload does not change it, because the ticker uses it too
	now  func() time.Time
	mask func(string) string
}

// ScheduleView is a schedule in responses. Unset fields are omitted.
type ScheduleView struct {
	ID            agented.ScheduleID `json:"id" example:"sch-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Cron          string             `json:"cron,omitempty" doc:"Five cron fields, or a macro such as @hourly"`
	Every         string             `json:"every,omitempty" doc:"Interval of elapsed time, counted from anchor"`
	Anchor        *time.Time         `json:"anchor,omitempty"`
	At            *time.Time         `json:"at,omitempty" doc:"Fires once, at this time"`
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
	Description   string             `json:"description" doc:"The schedule in words"`
	NextDueAt     *time.Time         `json:"next_due_at,omitempty" doc:"The next due time; omitted if there is none"`
	NextRunAt     *time.Time         `json:"next_run_at,omitempty" doc:"The next due time with its jitter: when it will fire"`
}

func (h *schedules) show(ctx context.Context, c *agented.Schedule) ScheduleView {
	v := ScheduleView{
		ID: c.ID, Cron: c.Cron, Every: c.Every, Anchor: rest.OptionalTime(c.Anchor), At: rest.OptionalTime(c.At), Zone: c.Zone,
		Missed: c.Missed, MissedLimit: c.MissedLimit, WindowSeconds: c.WindowSeconds, JitterSeconds: c.JitterSeconds,
		StartAt: rest.OptionalTime(c.StartAt), EndAt: rest.OptionalTime(c.EndAt), Overlap: c.Overlap, Message: c.Message, Enabled: c.Enabled,
		NextDueAt: rest.OptionalTime(c.NextDue), NextRunAt: rest.OptionalTime(c.NextRun),
	}
	if !rest.Principal(ctx).May(agented.RoleAdmin) {
		v.Message = h.mask(v.Message)
	}
	if table, err := cron.Of(*c, h.zone); err == nil {
		v.Description = table.Rhythm.Describe()
	}
	return v
}

// showAll returns a trigger's schedules and the earliest of their next
// runs.
func (h *schedules) showAll(ctx context.Context, t *agented.Trigger) (views []ScheduleView, next *time.Time) {
	views = make([]ScheduleView, len(t.Schedules))
	for i := range t.Schedules {
		views[i] = h.show(ctx, &t.Schedules[i])
		if at := views[i].NextRunAt; at != nil && (next == nil || at.Before(*next)) {
			next = at
		}
	}
	return views, next
}

// ScheduleFields are the fields of a schedule in requests. Omitted fields have
// their defaults.
type ScheduleFields struct {
	ID            rest.Optional[agented.ScheduleID] `json:"id,omitzero" doc:"Id of an existing schedule of the trigger. Omitted: an equivalent schedule is kept, or a new one is created"`
	Cron          rest.Optional[string]             `json:"cron,omitzero" doc:"One of cron, every and at is required. Five cron fields (minute hour day-of-month month day-of-week, 0 and 7 are Sunday), @hourly, @daily, @weekly, @monthly or @yearly"`
	Every         rest.Optional[string]             `json:"every,omitzero" doc:"Interval of elapsed time such as 15m, 1h30m or 2d"`
	Anchor        rest.Optional[time.Time]          `json:"anchor,omitzero" doc:"Start of the intervals of every. Default: time of creation"`
	At            rest.Optional[string]             `json:"at,omitzero" doc:"Fires once: 2030-01-31T09:00:00Z, or 2030-01-31 09:00 in the schedule's zone"`
	Zone          rest.Optional[string]             `json:"zone,omitzero" doc:"IANA name such as Europe/Berlin. Default: the server's TZ"`
	Missed        rest.Optional[agented.Missed]     `json:"missed,omitzero" doc:"Rule for due times that passed while the server was down: latest (default, one late run), all (one run each, up to missed_limit) or skip"`
	MissedLimit   rest.Optional[int]                `json:"missed_limit,omitzero" doc:"For missed all: 1 to 1000, default 10"`
	WindowSeconds rest.Optional[int]                `json:"window_seconds,omitzero" doc:"How late a missed due time is still run; 0 means no limit. Default 86400"`
	JitterSeconds rest.Optional[int]                `json:"jitter_seconds,omitzero" doc:"Largest random delay, always the same for the same due time. Default 0"`
	StartAt       rest.Optional[time.Time]          `json:"start_at,omitzero" doc:"Not due before this time"`
	EndAt         rest.Optional[time.Time]          `json:"end_at,omitzero" doc:"Not due after this time"`
	Overlap       rest.Optional[agented.Overlap]    `json:"overlap,omitzero" doc:"While an earlier execution of the trigger has not ended: skip (default; queue with missed all), queue or replace"`
	Message       rest.Optional[string]             `json:"message,omitzero" doc:"Value of {message} in the prompt"`
	Enabled       rest.Optional[bool]               `json:"enabled,omitzero" doc:"Default true"`
}

// schedule converts the fields into a schedule; local is the default zone. It
// also returns the invalid fields.
func (f *ScheduleFields) schedule(local *time.Location) (agented.Schedule, []agented.Field) {
	s := agented.Schedule{Enabled: true, WindowSeconds: agented.DefaultWindowSeconds, MissedLimit: agented.DefaultMissedLimit}
	f.ID.Into(&s.ID, "")
	f.Cron.Into(&s.Cron, "")
	f.Every.Into(&s.Every, "")
	f.Anchor.Into(&s.Anchor, time.Time{})
	f.Zone.Into(&s.Zone, "")
	f.Missed.Into(&s.Missed, "")
	f.MissedLimit.Into(&s.MissedLimit, agented.DefaultMissedLimit)
	f.WindowSeconds.Into(&s.WindowSeconds, agented.DefaultWindowSeconds)
	f.JitterSeconds.Into(&s.JitterSeconds, 0)
	f.StartAt.Into(&s.StartAt, time.Time{})
	f.EndAt.Into(&s.EndAt, time.Time{})
	f.Overlap.Into(&s.Overlap, "")
	f.Message.Into(&s.Message, "")
	f.Enabled.Into(&s.Enabled, true)
	s.Cron, s.Every, s.Zone = strings.Join(strings.Fields(s.Cron), " "), strings.TrimSpace(s.Every), strings.TrimSpace(s.Zone)
	zero := f.MissedLimit.Set && !f.MissedLimit.Null && s.MissedLimit == 0
	s = s.WithDefaults()
	if zero {
		s.MissedLimit = 0 // rejected later, instead of replaced by the default
	}
	for _, at := range []*time.Time{&s.Anchor, &s.StartAt, &s.EndAt} {
		if !at.IsZero() {
			*at = at.UTC().Truncate(time.Second)
		}
	}
	var bad []agented.Field
	if text := strings.TrimSpace(f.At.Value); f.At.Set && text != "" {
		zone := local
		if z, err := cron.LoadZone(s.Zone); err == nil {
			zone = z
		}
		once, err := cron.Parse("once " + text)
		if at, ok := once.Next(time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), zone); err == nil && ok {
			s.At = at.UTC()
		} else {
			s.At = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC) // so that it is not reported as missing
			bad = append(bad, agented.Field{Path: "at", Text: fmt.Sprintf("%q is not a time: write 2030-01-31T09:00:00Z, 2030-01-31T09:00:00+01:00, or 2030-01-31 09:00 for a time in the schedule's zone", format.Clip(text, 60))})
		}
	}
	_, err := cron.Of(s, local)
	if e, ok := err.(*agented.Error); ok {
		bad = append(bad, e.Fields...)
	}
	return s, bad
}

// apply sets a trigger's schedules from a request and computes the
// next due times that have to change. was is the stored trigger, or nil for a
// new one. Unchanged schedules keep their state exactly.
func (h *schedules) apply(t, was *agented.Trigger, f rest.Optional[[]ScheduleFields]) error {
	now := h.now()
	if was == nil {
		was = &agented.Trigger{}
	}
	if f.Set {
		list, err := merged(was.Schedules, f.Value, h.zone, now)
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
		table, err := cron.Of(*c, h.zone)
		if err != nil || !t.Enabled || !c.Enabled {
			continue
		}
		due, ok := table.Next(now)
		switch {
		case ok:
			c.NextDue, c.NextRun = due, table.Run(due)
		case !known && !c.At.IsZero() && !c.At.After(now):
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.at", i), Text: "has passed: use a time in the future"})
		case !known:
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.end_at", i), Text: "leaves no due time in the future: use a later time, or remove it"})
		}
	}
	return agented.InvalidFields(bad)
}

// merged converts the fields of schedules, and merges them with the stored ones.
func merged(stored []agented.Schedule, wanted []ScheduleFields, local *time.Location, now time.Time) ([]agented.Schedule, error) {
	if len(wanted) > agented.MaxSchedules {
		return nil, agented.InvalidFields([]agented.Field{{Path: "schedules", Text: fmt.Sprintf("has too many items: use at most %d for one trigger", agented.MaxSchedules)}})
	}
	list, wrong := make([]agented.Schedule, len(wanted)), make([][]agented.Field, len(wanted))
	for i := range wanted {
		list[i], wrong[i] = wanted[i].schedule(local)
	}
	list, unknown := cron.Merge(stored, list, now)
	var bad []agented.Field
	for i := range wanted {
		for _, f := range wrong[i] {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.%s", i, f.Path), Text: f.Text})
		}
		if slices.Contains(unknown, i) {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("schedules.%d.id", i), Text: "is not the id of a schedule of this trigger, or is repeated: omit it to add a schedule"})
		}
	}
	return list, agented.InvalidFields(bad)
}

// ScheduleItem is a schedule in a list over all triggers.
type ScheduleItem struct {
	ScheduleView
	TriggerID      agented.TriggerID `json:"trigger_id"`
	TriggerName    string            `json:"trigger_name"`
	TriggerEnabled bool              `json:"trigger_enabled" doc:"Schedules of a disabled trigger do not fire"`
}

type scheduleListInput struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor    string `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
	TriggerID string `query:"trigger_id" maxLength:"100" doc:"Only those of this trigger"`
}

func (h *schedules) list(ctx context.Context, in *scheduleListInput) (*rest.ListOutput[ScheduleItem], error) {
	items, next, err := h.db.Schedules(ctx, agented.TriggerID(in.TriggerID), store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, func(c *store.ScheduleOf) ScheduleItem {
		return ScheduleItem{ScheduleView: h.show(ctx, &c.Schedule), TriggerID: c.Trigger, TriggerName: c.TriggerName, TriggerEnabled: c.TriggerEnabled}
	}), nil
}

// SchedulePreview is the request to preview a schedule.
type SchedulePreview struct {
	ScheduleFields
	Count int       `json:"count,omitempty" minimum:"1" maximum:"50" doc:"Number of runs to list. Default 10"`
	After time.Time `json:"after,omitzero" doc:"Start of the preview. Default: now"`
}

// PreviewView are the due times of a previewed schedule.
type PreviewView struct {
	Description string    `json:"description" doc:"The schedule in words"`
	Zone        string    `json:"zone" doc:"Time zone of the schedule"`
	Runs        []RunView `json:"runs" doc:"Earliest first; fewer than requested if the schedule ends earlier"`
}

// RunView is one due time of a preview.
type RunView struct {
	DueAt       time.Time        `json:"due_at" doc:"In UTC"`
	Local       string           `json:"local" doc:"In the zone, with its UTC offset" example:"2030-03-31T03:00:00+02:00"`
	Weekday     string           `json:"weekday" doc:"In the zone"`
	RunAt       *time.Time       `json:"run_at,omitempty" doc:"With its jitter; omitted without jitter, and for a schedule that has no id yet"`
	ClockChange *ClockChangeView `json:"clock_change,omitempty" doc:"Set if the clock of the zone changes on that day"`
}

// ClockChangeView is a change of a zone's clock.
type ClockChangeView struct {
	At     time.Time `json:"at" doc:"In UTC"`
	Before string    `json:"offset_before" example:"+01:00"`
	After  string    `json:"offset_after" example:"+02:00"`
	Text   string    `json:"text" doc:"Effect on this run"`
}

func (h *schedules) preview(_ context.Context, in *rest.Input[SchedulePreview]) (*rest.Output[PreviewView], error) {
	c, bad := in.Body.schedule(h.zone)
	now := h.now()
	if c.Every != "" && c.Anchor.IsZero() {
		c.Anchor = now.Truncate(time.Second)
	}
	if len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	table, err := cron.Of(c, h.zone)
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
	out := rest.Reply(PreviewView{Description: table.Rhythm.Describe(), Zone: table.Zone.String(), Runs: []RunView{}})
	for _, r := range table.Preview(after, min(count, maxPreview)) {
		v := RunView{DueAt: rest.Time(r.At), Local: r.At.Format(time.RFC3339), Weekday: r.At.Weekday().String()}
		if c.ID != "" && c.JitterSeconds > 0 {
			v.RunAt = rest.OptionalTime(table.Run(r.At))
		}
		if r.Clock != nil {
			v.ClockChange = &ClockChangeView{At: rest.Time(r.Clock.At), Before: offset(r.Clock.Before), After: offset(r.Clock.After), Text: r.Clock.Text}
		}
		out.Body.Runs = append(out.Body.Runs, v)
	}
	return out, nil
}

// offset formats a zone's UTC offset.
func offset(d time.Duration) string {
	return time.Unix(0, 0).In(time.FixedZone("", int(d/time.Second))).Format("-07:00")
}

// TickView is the outcome of one due time of a schedule.
type TickView struct {
	ScheduleID  agented.ScheduleID   `json:"schedule_id"`
	TriggerID   agented.TriggerID    `json:"trigger_id"`
	DueAt       time.Time            `json:"due_at"`
	Outcome     agented.TickOutcome  `json:"outcome" enum:"fired,late,coalesced,skipped,missed"`
	Reason      string               `json:"reason" doc:"One sentence; empty if it fired on time"`
	ExecutionID *agented.ExecutionID `json:"execution_id" nullable:"true" doc:"The execution that it fired; for a coalesced one the late run that covers it, for a skipped one the cancelled execution with the reason"`
	DecidedAt   time.Time            `json:"decided_at"`
}

func viewTick(k *agented.Tick) TickView {
	v := TickView{ScheduleID: k.Schedule, TriggerID: k.Trigger, DueAt: rest.Time(k.DueAt), Outcome: k.Outcome, Reason: k.Reason, DecidedAt: rest.Time(k.DecidedAt)}
	if k.Execution != "" {
		v.ExecutionID = &k.Execution
	}
	return v
}

// TickQuery filters a list of ticks.
type TickQuery struct {
	Limit      int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor     string    `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
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

func (h *schedules) listTicks(ctx context.Context, in *tickListInput) (*rest.ListOutput[TickView], error) {
	return h.ticks(ctx, agented.TriggerID(in.TriggerID), in.TickQuery)
}

func (h *schedules) listTriggerTicks(ctx context.Context, in *triggerTicksInput) (*rest.ListOutput[TickView], error) {
	t, err := findTrigger(ctx, h.db, in.ID)
	if err != nil {
		return nil, err
	}
	return h.ticks(ctx, t.ID, in.TickQuery)
}

func (h *schedules) ticks(ctx context.Context, trigger agented.TriggerID, f TickQuery) (*rest.ListOutput[TickView], error) {
	items, next, err := h.db.Ticks(ctx, store.TickFilter{
		Schedule: agented.ScheduleID(f.ScheduleID), Trigger: trigger, Outcome: agented.TickOutcome(f.Outcome),
		DueAfter: f.DueAfter, DueBefore: f.DueBefore,
	}, store.Page{Limit: f.Limit, Cursor: f.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, viewTick), nil
}

// routes returns the routes of schedules and ticks.
func (h *schedules) routes() []rest.Route {
	const viewer = agented.RoleViewer
	return []rest.Route{
		rest.Op("GET /api/v1/schedules", viewer, h.list, rest.About{
			ID: "list-schedules", Tag: "schedules", Summary: "List schedules",
			Text: "Lists the schedules of all triggers in order of creation, each with its next due time.",
		}),
		rest.Op("POST /api/v1/schedules/preview", viewer, h.preview, rest.About{
			ID: "preview-schedule", Tag: "schedules", Summary: "Preview a schedule", Status: http.StatusOK,
			Text: "Returns the next due times of the schedule in the body, with the days on which the clock of its zone changes. Nothing is stored.",
		}),
		rest.Op("GET /api/v1/ticks", viewer, h.listTicks, rest.About{
			ID: "list-ticks", Tag: "schedules", Summary: "List ticks",
			Text: "Lists the outcome of each due time of each schedule, latest due time first.",
		}),
		rest.Op("GET /api/v1/triggers/{id}/ticks", viewer, h.listTriggerTicks, rest.About{
			ID: "list-trigger-ticks", Tag: "schedules", Summary: "List the ticks of a trigger", Errors: []int{http.StatusNotFound},
			Text: "Lists the outcome of each due time of the trigger's schedules, latest due time first.",
		}).Reaching(rest.OwnTrigger),
	}
}
