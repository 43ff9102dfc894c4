package api

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/searchpath"
	"github.com/agented/agented/internal/store"
)

// Overview is the current activity of the server.
type Overview struct {
	Now      time.Time       `json:"now"`
	Running  []RunningView   `json:"running" doc:"Oldest first, at most 50"`
	Waiting  []ExecutionView `json:"waiting" doc:"Oldest first, at most 20, each with the reason why it waits"`
	Failed   []ExecutionView `json:"failed" doc:"Failed, timed out or interrupted, created since the start of yesterday; newest first, at most 20"`
	NextRuns []NextRunView   `json:"next_runs" doc:"The schedules that fire next, at most 10"`
	Counts   OverviewCounts  `json:"counts"`
	Days     []DayView       `json:"days" doc:"By day of creation, oldest first; the last one is today"`
	Health   HealthView      `json:"health"`
}

// OverviewCounts are counts over all executions.
type OverviewCounts struct {
	Running     int64 `json:"running"`
	Pending     int64 `json:"pending"`
	FailedSince int64 `json:"failed_since_yesterday"`
	Limit       int   `json:"max_concurrent" doc:"Concurrent executions on this node"`
}

// RunningView is a running execution with the last line of its log.
type RunningView struct {
	ExecutionView
	LastLine *sse.LastLine `json:"last_line,omitempty" doc:"Omitted if nothing was printed yet"`
}

// NextRunView is the next time a schedule fires its trigger.
type NextRunView struct {
	TriggerID   agented.TriggerID `json:"trigger_id"`
	TriggerName string            `json:"trigger_name"`
	At          time.Time         `json:"at"`
}

// DayView are the results of the executions created on one day.
type DayView struct {
	Date        string `json:"date" example:"2026-11-23" doc:"The day in the requested time zone"`
	Success     int64  `json:"success"`
	Failed      int64  `json:"failed"`
	Timeout     int64  `json:"timeout"`
	Cancelled   int64  `json:"cancelled"`
	Interrupted int64  `json:"interrupted"`
	Open        int64  `json:"open" doc:"Not ended yet"`
	MedianMS    *int64 `json:"median_ms" nullable:"true" doc:"Median duration of successful executions"`
	P95MS       *int64 `json:"p95_ms" nullable:"true" doc:"95th percentile of the duration of successful executions"`
}

// HealthView is the health of the server.
type HealthView struct {
	Version       string    `json:"version"`
	StartedAt     time.Time `json:"started_at"`
	CLIs          []CLIView `json:"clis"`
	DatabaseBytes int64     `json:"database_bytes"`
	DiskFreeBytes *int64    `json:"disk_free_bytes" nullable:"true" doc:"Free space on the file system of the data folder"`
	DiskBytes     *int64    `json:"disk_bytes" nullable:"true"`
	Drained       *Drained  `json:"drained,omitempty" doc:"When drain mode was turned on, and by whom; omitted while it is off"`
	Problem       string    `json:"problem" doc:"Why the server cannot work; empty if it can"`
	Notices       []string  `json:"notices" doc:"Conditions that need attention although the server works: a disk that is nearly full, a failed backup, executions without a sandbox"`
}

// CLIView is an agent CLI, and whether executions find it.
type CLIView struct {
	Backend string `json:"backend"`
	Program string `json:"program"`
	Found   bool   `json:"found"`
	Path    string `json:"path" doc:"Path of the program; only for admins"`
	Install string `json:"install" doc:"Command that installs it"`
}

const (
	maxDays     = 60
	shownList   = 20
	daysFresh   = time.Minute // maximum age of the figures of past days
	clisFresh   = 30 * time.Second
	maxDayZones = 32 // time zones whose days are cached
)

// overview serves GET /api/v1/overview. Past days hardly change, so their
// figures are cached.
type overview struct {
	db        *store.DB
	operation *operation
	keep      Maintenance
	layout    agented.Layout
	version   string
	started   time.Time
	log       *slog.Logger
	config    func() *config.Config
	healthy   func() error // an error if no execution would be started or no schedule fired
	now       func() time.Time
	masker    func() *redact.Masker
	sandbox   func() SandboxState // nil: no state

	mu     sync.Mutex
	days   map[string]keptDays
	clis   []CLIView
	clisAt time.Time
}

type keptDays struct {
	at   time.Time
	days []store.Day
}

// routes returns the route of the overview.
func (h *overview) routes() []rest.Route {
	return []rest.Route{
		rest.Op("GET /api/v1/overview", agented.RoleViewer, h.get, rest.About{
			ID: "get-overview", Tag: "server", Summary: "Show current activity", Text: "Returns running executions with their last line, waiting ones with the reason, failures since yesterday, the next due times, executions by day and outcome, and the health of the server.",
		}),
	}
}

type overviewInput struct {
	Zone string `query:"tz" maxLength:"64" default:"UTC" example:"Europe/Berlin" doc:"Time zone in which a day begins"`
	Days int    `query:"days" minimum:"1" maximum:"60" default:"14" doc:"Number of days, including today"`
}

func (h *overview) get(ctx context.Context, in *overviewInput) (*rest.Output[Overview], error) {
	zone, err := time.LoadLocation(in.Zone)
	if err != nil || in.Zone == "Local" {
		return nil, agented.InvalidFields([]agented.Field{{Path: "query.tz", Text: "must be the name of a time zone, such as UTC or Europe/Berlin"}})
	}
	db, now := h.db, h.now()
	view := Overview{Now: now, Running: []RunningView{}, Waiting: []ExecutionView{}, Failed: []ExecutionView{}, NextRuns: []NextRunView{}}
	running, err := db.Running(ctx, maxRunning)
	if err != nil {
		return nil, err
	}
	for i := range running {
		line, err := sse.ReadLastLine(h.layout, running[i].ID, 0, h.masker())
		if err != nil {
			h.log.Warn("could not read the end of a log", "execution", running[i].ID, "err", err)
		}
		view.Running = append(view.Running, RunningView{ExecutionView: showExecution(h.masker(), &running[i], false), LastLine: line})
	}
	waiting, err := db.Waiting(ctx, shownList)
	if err != nil {
		return nil, err
	}
	limit := h.config().MaxConcurrent
	for i := range waiting {
		v := showExecution(h.masker(), &waiting[i], false)
		if v.Reason == "" {
			v.Reason = whyWaiting(&waiting[i], now, len(running), limit)
		}
		view.Waiting = append(view.Waiting, v)
	}
	at := midnights(now.In(zone), max(in.Days, 2))
	yesterday := at[len(at)-3]
	failed, _, err := db.Executions(ctx, store.ExecutionFilter{
		States: []agented.State{agented.StateFailed, agented.StateTimeout, agented.StateInterrupted}, CreatedAfter: yesterday,
	}, store.Page{Limit: shownList})
	if err != nil {
		return nil, err
	}
	for i := range failed {
		view.Failed = append(view.Failed, showExecution(h.masker(), &failed[i], false))
	}
	next, err := db.NextRuns(ctx, 10)
	if err != nil {
		return nil, err
	}
	for _, n := range next {
		view.NextRuns = append(view.NextRuns, NextRunView{TriggerID: n.Trigger, TriggerName: n.TriggerName, At: rest.Time(n.At)})
	}
	days, err := h.figures(ctx, in.Zone, at, now)
	if err != nil {
		return nil, err
	}
	for _, d := range days[len(days)-2:] {
		view.Counts.FailedSince += d.Counts[agented.StateFailed] + d.Counts[agented.StateTimeout] + d.Counts[agented.StateInterrupted]
	}
	for _, d := range days[len(days)-in.Days:] {
		view.Days = append(view.Days, viewDay(d, zone))
	}
	counts, err := db.Counts(ctx)
	if err != nil {
		return nil, err
	}
	view.Counts.Running, view.Counts.Pending, view.Counts.Limit = counts[agented.StateRunning], counts[agented.StatePending], limit
	if view.Health, err = h.state(ctx); err != nil {
		return nil, err
	}
	return rest.Reply(view), nil
}

// whyWaiting returns why a pending execution waits if no reason is recorded.
func whyWaiting(e *agented.Execution, now time.Time, running, limit int) string {
	if e.ScheduledAt.After(now) {
		return "due later"
	}
	if limit > 0 && running >= limit {
		return "waits for a free slot: " + strconv.Itoa(running) + " of " + strconv.Itoa(limit) + " run"
	}
	return "about to start"
}

// midnights returns the starts of the last n days and of tomorrow.
func midnights(now time.Time, n int) []time.Time {
	y, m, d := now.Date()
	var out []time.Time
	for i := n - 1; i >= -1; i-- {
		out = append(out, time.Date(y, m, d-i, 0, 0, 0, 0, now.Location()))
	}
	return out
}

// figures returns the figures of the days that begin at all but the last of at.
func (h *overview) figures(ctx context.Context, zone string, at []time.Time, now time.Time) ([]store.Day, error) {
	key := zone + " " + at[0].UTC().Format(time.RFC3339) + " " + strconv.Itoa(len(at))
	// One at a time: the second request reuses the result of the first.
	h.mu.Lock()
	defer h.mu.Unlock()
	past := h.days[key]
	if age := now.Sub(past.at); past.days == nil || age < 0 || age > daysFresh {
		days, err := h.db.Days(ctx, at[:len(at)-1])
		if err != nil {
			return nil, err
		}
		past = keptDays{at: now, days: days}
		if h.days == nil || len(h.days) >= maxDayZones {
			h.days = map[string]keptDays{}
		}
		h.days[key] = past
	}
	today, err := h.db.Days(ctx, at[len(at)-2:])
	if err != nil {
		return nil, err
	}
	return append(past.days[:len(past.days):len(past.days)], today...), nil
}

func viewDay(d store.Day, zone *time.Location) DayView {
	v := DayView{
		Date:    d.From.In(zone).Format(time.DateOnly),
		Success: d.Counts[agented.StateSuccess], Failed: d.Counts[agented.StateFailed], Timeout: d.Counts[agented.StateTimeout],
		Cancelled: d.Counts[agented.StateCancelled], Interrupted: d.Counts[agented.StateInterrupted],
		Open: d.Counts[agented.StatePending] + d.Counts[agented.StateRunning],
	}
	if v.Success > 0 {
		median, p95 := d.Median.Milliseconds(), d.P95.Milliseconds()
		v.MedianMS, v.P95MS = &median, &p95
	}
	return v
}

func (h *overview) state(ctx context.Context) (HealthView, error) {
	v := HealthView{Version: h.version, StartedAt: rest.Time(h.started), CLIs: h.foundCLIs(), Drained: h.operation.drained(), Notices: h.keep.texts()}
	if v.Drained != nil {
		v.Notices = append(v.Notices, "The server is drained by "+v.Drained.By+": new executions wait until `agented drain --off`.")
	}
	if problem := sandboxState(h.sandbox).Problem; problem != "" {
		v.Notices = append(v.Notices, problem)
	}
	if !rest.Principal(ctx).May(agented.RoleAdmin) {
		v.CLIs = append([]CLIView{}, v.CLIs...)
		for i := range v.CLIs {
			v.CLIs[i].Path = ""
		}
	}
	var err error
	if v.DatabaseBytes, err = h.db.Bytes(ctx); err != nil {
		return v, err
	}
	if space, err := disk.Measure(h.layout.Root); err == nil {
		v.DiskFreeBytes, v.DiskBytes = &space.Free, &space.Total
	}
	if err := h.healthy(); err != nil {
		v.Problem = h.masker().MaskString(agented.Message(err))
	}
	return v, nil
}

// foundCLIs looks up the agent CLIs in the PATH of executions.
func (h *overview) foundCLIs() []CLIView {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clis != nil && now.Sub(h.clisAt).Abs() < clisFresh {
		return h.clis
	}
	c := h.config()
	list := []CLIView{}
	for _, b := range registry.All() {
		if b.Program() == "" {
			continue
		}
		v := CLIView{Backend: b.Name(), Program: b.Program(), Install: b.Install()}
		env, err := registry.ChildEnv(b, agented.Spec{Backend: b.Name()}, c.BackendEnv(b.Name()), c.Variable, nil)
		if err == nil {
			v.Path = findProgram(b.Program(), env)
			v.Found = v.Path != ""
		}
		list = append(list, v)
	}
	h.clis, h.clisAt = list, now
	return list
}

// findProgram returns the path of a program in the PATH of env, or "" if it is
// not found.
func findProgram(program string, env []string) string {
	for _, kv := range env {
		dirs, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		file, _ := searchpath.Find(program, dirs)
		return file
	}
	return ""
}
