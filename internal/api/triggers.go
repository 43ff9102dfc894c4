package api

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/hooks"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/contract"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
)

// maskedValue stands for a secret value in responses, and in an update for the stored
// value.
const maskedValue = "***"

// triggers handles the requests about triggers.
type triggers struct {
	db        *store.DB
	schedules *schedules
	hooks     *hooks.Hooks
	agents    AgentDirectory
	runs      Starter
	scheduler Scheduler
	sealer    auth.Sealer
	env       envViews
	audit     *auditLog
	changes   *sse.Changes
	log       *slog.Logger
	config    func() *config.Config
	now       func() time.Time
	masker    func() *redact.Masker

	changing sync.Mutex // held while a trigger is read, changed and written
}

// TriggerView is a trigger in responses. Names are stable; fields may be added.
type TriggerView struct {
	ID             agented.TriggerID   `json:"id" example:"trg-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Name           string              `json:"name" doc:"Unique, ignoring case"`
	Enabled        bool                `json:"enabled"`
	Backend        backendName         `json:"backend"`
	Command        []string            `json:"command" doc:"Backend command: the program and its arguments"`
	TTY            bool                `json:"tty" doc:"Backend command: run on a pseudo-terminal"`
	Prompt         string              `json:"prompt" doc:"Template of the prompt"`
	Model          string              `json:"model" doc:"Empty: the CLI's default"`
	Permission     agented.Permission  `json:"permission" doc:"read, edit or full; empty for backend command"`
	Args           []string            `json:"args" doc:"Additional arguments for the CLI"`
	WorkingDir     string              `json:"working_dir" doc:"Empty: a directory of the execution"`
	Paths          []string            `json:"paths" doc:"Additional directories that the agent may use"`
	TimeoutSeconds int                 `json:"timeout_seconds" doc:"Wall-clock limit; 0 means no limit"`
	SilenceSeconds int                 `json:"silence_timeout_seconds" doc:"Limit on seconds without output; 0 means no limit"`
	Env            map[string]EnvValue `json:"env" doc:"Variables for the process. *** stands for each secret value, {value, secret: false} is a value that is not secret, null passes the server's variable of that name"`
	MaxConcurrent  int                 `json:"max_concurrent" doc:"Concurrent executions; 0: only the node's limit"`
	Overlap        agented.Overlap     `json:"overlap" enum:"queue,skip,replace"`
	Account        agented.AccountID   `json:"account" doc:"Id or name of an account; empty: any account of the backend"`
	Fallback       []agented.Choice    `json:"fallback" doc:"Choices that are tried in order when no earlier one is ready"`
	Retry          agented.RetryPolicy `json:"retry" doc:"What happens after an attempt that did not succeed; omitted fields have their defaults"`
	Workspace      *agented.Workspace  `json:"workspace,omitempty" doc:"A git repository to work in; omitted: none"`
	Publish        *agented.Publish    `json:"publish,omitempty" doc:"What the server may write to the forge; omitted: nothing"`
	TrustRepo      bool                `json:"trust_repository" doc:"Use the agent files of the checkout (CLAUDE.md, .claude, .mcp.json and so on) as they are. Otherwise they come from the default branch, and project settings, hooks and servers are off"`
	Sandbox        agented.Sandbox     `json:"sandbox" doc:"Isolation of the processes: off, guard or strict; empty: the server's default (AGENTED_SANDBOX)"`
	Network        *agented.Network    `json:"network,omitempty" doc:"What the processes may reach at sandbox level strict besides the API of the model and the host of the workspace; omitted: nothing"`
	Limits         agented.Limits      `json:"limits" doc:"Limits of all processes together; 0 or absent: the server's default"`
	CeilingUSD     float64             `json:"ceiling_usd" doc:"Cost at which a running execution is paused with a question; 0 means none"`
	Notify         agented.NotifyRules `json:"notify,omitempty" doc:"Channels that are notified about its executions, by kind of notification; other stands for the kinds that are not listed. Omitted: the channels' own rules"`
	Expect         *agented.Expect     `json:"expect,omitempty" doc:"Outcome contract: what an execution must achieve besides the success of its CLI; omitted: none"`
	ExpectEvery    string              `json:"expect_every" doc:"Period within which an execution must succeed, otherwise dead_man is notified; empty: none"`
	Schedules      []ScheduleView      `json:"schedules" doc:"Schedules that fire it"`
	NextRunAt      *time.Time          `json:"next_run_at" nullable:"true" doc:"When the first of the schedules will fire; null if none will"`
	Webhooks       []hooks.WebhookView `json:"webhooks" doc:"Webhooks that fire it"`
	Messages       []MessageRuleView   `json:"messages" doc:"Messages that fire it"`
	Agent          string              `json:"agent" doc:"Name of the agent that provides prompt and backend settings; empty: none"`
	WebhookURL     string              `json:"webhook_url" doc:"Path that receives webhook calls; empty if there is none"`
	Hints          []HintView          `json:"hints,omitempty" doc:"Problems that keep the trigger from firing; omitted if there are none. For admins only"`
	LastExecution  *ExecutionView      `json:"last_execution,omitempty" doc:"The newest execution. Omitted in responses to changes, and if it never fired"`
	CreatedAt      time.Time           `json:"created_at"`
	UpdatedAt      time.Time           `json:"updated_at"`
	ETag           string              `json:"etag" doc:"Version of the object, for If-Match in an update"`
}

func viewTrigger(t *agented.Trigger) TriggerView {
	return TriggerView{
		ID: t.ID, Name: t.Name, Enabled: t.Enabled, Backend: backendName(t.Spec.Backend), Command: rest.NotNil(t.Spec.Command),
		TTY: t.Spec.TTY, Prompt: t.Spec.Prompt, Model: t.Spec.Model, Permission: t.Spec.Permission,
		Args: rest.NotNil(t.Spec.Args), WorkingDir: t.Spec.WorkingDir, Paths: rest.NotNil(t.Spec.Paths),
		TimeoutSeconds: t.Spec.TimeoutSeconds, SilenceSeconds: t.Spec.SilenceSeconds,
		MaxConcurrent: t.Spec.MaxConcurrent, Overlap: t.Spec.Overlap,
		Account: t.Spec.Account, Fallback: rest.NotNil(t.Spec.Fallback), Retry: t.Spec.Retry,
		Workspace: t.Spec.Workspace, Publish: t.Spec.Publish, TrustRepo: t.Spec.TrustRepo, Sandbox: t.Spec.Sandbox, Network: t.Spec.Network, Limits: t.Spec.Limits, CeilingUSD: t.Spec.CeilingUSD, Expect: t.Spec.Expect, ExpectEvery: t.Spec.ExpectEvery,
		Notify:    t.Spec.Notify,
		CreatedAt: rest.Time(t.CreatedAt), UpdatedAt: rest.Time(t.UpdatedAt), ETag: triggerETag(t),
	}
}

// show converts a trigger for a response. Commands and prompts can
// contain secrets: callers who may not change the trigger get them masked.
// Callers who may change it get the original, since writing a mask back would
// change it.
func (h *triggers) show(ctx context.Context, t *agented.Trigger) TriggerView {
	admin := rest.Principal(ctx).May(agented.RoleAdmin)
	v := viewTrigger(t)
	v.Env = h.env.show(&t.Spec, admin)
	v.Schedules, v.NextRunAt = h.schedules.showAll(ctx, t)
	v.Webhooks, v.WebhookURL = h.hooks.View(t)
	v.Messages = viewMessageRules(h.agents, t)
	if t.Spec.Agent != "" {
		v.Agent = h.agents.AgentName(agented.AgentID(t.Spec.Agent))
	}
	if admin {
		v.Hints = triggerHints(h.config(), t)
		return v
	}
	v.Prompt = h.masker().MaskString(v.Prompt)
	v.Command, v.Args = slices.Clone(v.Command), slices.Clone(v.Args)
	lists := [][]string{v.Command, v.Args}
	if v.Expect != nil {
		x := *v.Expect
		x.Command = slices.Clone(x.Command)
		v.Expect, lists = &x, append(lists, x.Command)
	}
	for _, l := range lists {
		for i := range l {
			l[i] = h.masker().MaskString(l[i])
		}
	}
	return v
}

// SpecFields are the fields of what to run, in requests. An omitted field has
// its default in a new trigger and is unchanged in an update; null is the
// default.
type SpecFields struct {
	Agent          rest.Optional[string]              `json:"agent,omitzero" doc:"Id or name of an agent, instead of backend, model, permission, args, directories and env"`
	Backend        rest.Optional[string]              `json:"backend,omitzero" doc:"command, or an agent CLI such as claude"`
	Command        rest.Optional[[]string]            `json:"command,omitzero" doc:"Backend command: the program and its arguments, for example [\"sh\",\"-c\",\"echo hi\"]"`
	TTY            rest.Optional[bool]                `json:"tty,omitzero" doc:"Backend command: run on a pseudo-terminal. Default false"`
	Prompt         rest.Optional[string]              `json:"prompt,omitzero" doc:"The agent's task; backend command receives it on standard input. {message}, {vars.NAME} and the other placeholders are filled in when it fires; {{name}} stands for the text {name}"`
	Model          rest.Optional[string]              `json:"model,omitzero" doc:"Model for the agent. Default: the CLI's default"`
	Permission     rest.Optional[agented.Permission]  `json:"permission,omitzero" doc:"What the agent may do without asking: read, edit (default) or full"`
	Args           rest.Optional[[]string]            `json:"args,omitzero" doc:"Additional arguments, passed to the CLI unchanged"`
	WorkingDir     rest.Optional[string]              `json:"working_dir,omitzero" doc:"Absolute path. Default: a directory of the execution"`
	Paths          rest.Optional[[]string]            `json:"paths,omitzero" doc:"Additional directories, absolute paths; {paths} in a prompt"`
	TimeoutSeconds rest.Optional[int]                 `json:"timeout_seconds,omitzero" doc:"Wall-clock limit in seconds; 0 means no limit. Default 3600"`
	SilenceSeconds rest.Optional[int]                 `json:"silence_timeout_seconds,omitzero" doc:"Limit on seconds without output; 0 means no limit. Default 0"`
	Env            rest.Optional[map[string]EnvValue] `json:"env,omitzero" doc:"Variables for the process. Replaces all stored ones. A value is a secret, which is masked in everything that executions print, unless it is written as {\"value\": \"…\", \"secret\": false}. The value null passes the server's variable of that name, if that name is allowed. In an update, the value *** keeps the stored value of that name"`
	MaxConcurrent  rest.Optional[int]                 `json:"max_concurrent,omitzero" doc:"Concurrent executions; 0: only the node's limit. Default 1 for triggers, 0 for ad-hoc executions"`
	Overlap        rest.Optional[agented.Overlap]     `json:"overlap,omitzero" doc:"Rule while an earlier execution has not ended: queue (default), skip or replace"`
	Account        rest.Optional[agented.AccountID]   `json:"account,omitzero" doc:"Id or name of an account. Default: any account of the backend"`
	Fallback       rest.Optional[[]agented.Choice]    `json:"fallback,omitzero" doc:"Choices that are tried in order when no earlier one is ready"`
	Retry          rest.Optional[agented.RetryPolicy] `json:"retry,omitzero" doc:"What happens after an attempt that did not succeed; replaced as a whole. By default limits, overloads and network failures are waited out, and a failure of the agent is final"`
	Workspace      rest.Optional[*agented.Workspace]  `json:"workspace,omitzero" doc:"A git repository to work in, instead of working_dir: each execution gets its own checkout, at the event's commit if there is one"`
	Publish        rest.Optional[*agented.Publish]    `json:"publish,omitzero" doc:"What the server may write to the forge with its own credentials, from proposals of the agent; replaced as a whole"`
	TrustRepo      rest.Optional[bool]                `json:"trust_repository,omitzero" doc:"Use the agent files of the checkout (CLAUDE.md, .claude, .mcp.json and so on) as they are. Otherwise they come from the default branch, and project settings, hooks and servers are off"`
	Sandbox        rest.Optional[agented.Sandbox]     `json:"sandbox,omitzero" doc:"Isolation of the processes from the server and its data: off, guard or strict. Default: the server's setting AGENTED_SANDBOX. With an agent, the stronger of both levels counts"`
	Network        rest.Optional[*agented.Network]    `json:"network,omitzero" doc:"What the processes may reach at sandbox level strict besides the API of the model and the host of the workspace; replaced as a whole. Default: nothing"`
	Limits         rest.Optional[agented.Limits]      `json:"limits,omitzero" doc:"Limits of all processes of an execution together; replaced as a whole. What is 0 or absent has the server's default. With an agent, the lower of both counts"`
	Expect         rest.Optional[*agented.Expect]     `json:"expect,omitzero" doc:"Outcome contract: what an execution must achieve besides the success of its CLI. If it does not, it has failed with the class no_effect. Replaced as a whole; default none"`
	ExpectEvery    rest.Optional[string]              `json:"expect_every,omitzero" doc:"Period within which an execution must succeed, such as 26h or 1w2d, from 10s to 366d; otherwise dead_man is notified. Default none"`
	CeilingUSD     rest.Optional[float64]             `json:"ceiling_usd,omitzero" doc:"Cost at which a running execution is paused with a question; 0 (default) means none"`
}

// apply applies the request to a spec. maxConcurrent is the default.
func (f *SpecFields) apply(s *agented.Spec, maxConcurrent int) error {
	f.Backend.Into(&s.Backend, "")
	f.Agent.Into(&s.Agent, "")
	f.Command.Into(&s.Command, nil)
	f.TTY.Into(&s.TTY, false)
	f.Prompt.Into(&s.Prompt, "")
	f.Model.Into(&s.Model, "")
	f.Permission.Into(&s.Permission, "")
	f.Args.Into(&s.Args, nil)
	f.WorkingDir.Into(&s.WorkingDir, "")
	f.Paths.Into(&s.Paths, nil)
	f.TimeoutSeconds.Into(&s.TimeoutSeconds, agented.DefaultTimeoutSeconds)
	f.SilenceSeconds.Into(&s.SilenceSeconds, 0)
	f.MaxConcurrent.Into(&s.MaxConcurrent, maxConcurrent)
	f.Overlap.Into(&s.Overlap, "")
	f.Account.Into(&s.Account, "")
	f.Fallback.Into(&s.Fallback, nil)
	f.Retry.Into(&s.Retry, agented.RetryPolicy{})
	f.Workspace.Into(&s.Workspace, nil)
	f.Publish.Into(&s.Publish, nil)
	f.Limits.Into(&s.Limits, agented.Limits{})
	f.CeilingUSD.Into(&s.CeilingUSD, 0)
	f.Expect.Into(&s.Expect, nil)
	f.TrustRepo.Into(&s.TrustRepo, false)
	f.Sandbox.Into(&s.Sandbox, "")
	f.Network.Into(&s.Network, nil)
	if s.Backend == agented.BackendCommand && f.Backend.Set && !f.Permission.Set {
		s.Permission = "" // from the agent that it had before
	}
	*s = s.WithDefaults()
	if err := agented.InvalidFields(contract.Check(s.Expect)); err != nil {
		return err
	}
	return envInto(s, f.Env)
}

// TriggerFields are the fields of a trigger in requests.
type TriggerFields struct {
	Name    rest.Optional[string] `json:"name,omitzero" doc:"Unique, ignoring case; at most 200 bytes"`
	Enabled rest.Optional[bool]   `json:"enabled,omitzero" doc:"Default true"`
	SpecFields
	Notify    rest.Optional[agented.NotifyRules]   `json:"notify,omitzero" doc:"Channels that are notified about its executions, by kind of notification: failed, recovered, needs_person, paused, parked, budget, no_effect, held, or other for all kinds that are not listed. An empty list sends nothing. Default: the channels' own rules"`
	Schedules rest.Optional[[]ScheduleFields]      `json:"schedules,omitzero" doc:"Schedules that fire it; replaces all stored ones. An equivalent schedule keeps its id and its state"`
	Messages  rest.Optional[[]MessageRuleFields]   `json:"messages,omitzero" doc:"Messages that fire it; replaces all stored ones"`
	Webhooks  rest.Optional[[]hooks.WebhookFields] `json:"webhooks,omitzero" doc:"Webhooks that fire it; replaces all stored ones. One with a known id keeps its secret if that is omitted or ***"`
}

func (f *TriggerFields) apply(t *agented.Trigger) error {
	before := t.Name
	f.Name.Into(&t.Name, "")
	f.Enabled.Into(&t.Enabled, true)
	f.Notify.Into(&t.Spec.Notify, nil)
	f.ExpectEvery.Into(&t.Spec.ExpectEvery, "")
	if err := f.SpecFields.apply(&t.Spec, agented.DefaultMaxConcurrent); err != nil {
		return err
	}
	return agented.InvalidFields(checkName(t.Validate(), before, t.Name))
}

// TriggerCreate is the request to create a trigger.
type TriggerCreate struct{ TriggerFields }

// TriggerUpdate is the request to update a trigger: a JSON merge patch, except
// that env is replaced as a whole.
type TriggerUpdate struct{ TriggerFields }

// newSpec returns a spec with those defaults that differ from zero.
func newSpec(maxConcurrent int) agented.Spec {
	return agented.Spec{TimeoutSeconds: agented.DefaultTimeoutSeconds, MaxConcurrent: maxConcurrent}
}

type triggerPath struct {
	ID string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
}

// triggerID validates an id from a path.
func triggerID(id string) (agented.TriggerID, error) {
	if !agented.ValidID("trg", id) {
		return "", agented.Errorf(agented.NotFound, "no trigger has this id; GET /api/v1/triggers?name=NAME finds one by its name")
	}
	return agented.TriggerID(id), nil
}

// findTrigger returns the trigger with an id from a request.
func findTrigger(ctx context.Context, db *store.DB, id string) (*agented.Trigger, error) {
	tid, err := triggerID(id)
	if err != nil {
		return nil, err
	}
	return db.Trigger(ctx, tid)
}

type triggerListInput struct {
	Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor  string `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
	Name    string `query:"name" maxLength:"200" doc:"Only the trigger of this name, ignoring case"`
	Query   string `query:"q" maxLength:"200" doc:"Only names that contain this text, ignoring case"`
	Enabled string `query:"enabled" enum:"true,false" doc:"Only enabled or only disabled triggers"`
}

func (h *triggers) list(ctx context.Context, in *triggerListInput) (*rest.ListOutput[TriggerView], error) {
	show := func(t *agented.Trigger) TriggerView { return h.show(ctx, t) }
	if in.Name != "" {
		t, err := h.db.TriggerByName(ctx, in.Name)
		switch {
		case agented.KindOf(err) == agented.NotFound:
			return rest.List(nil, "", show), nil
		case err != nil:
			return nil, err
		case !rest.Principal(ctx).Reaches(t.ID),
			in.Enabled != "" && t.Enabled != (in.Enabled == "true"),
			!strings.Contains(naming.Key(t.Name), naming.Key(in.Query)):
			return rest.List(nil, "", show), nil
		}
		return rest.List([]agented.Trigger{*t}, "", show), nil
	}
	f := store.TriggerFilter{Query: in.Query, Only: rest.Principal(ctx).Triggers}
	if in.Enabled != "" {
		on := in.Enabled == "true"
		f.Enabled = &on
	}
	items, next, err := h.db.Triggers(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	last, err := h.lastExecutions(ctx, items)
	if err != nil {
		return nil, err
	}
	return rest.List(items, next, func(t *agented.Trigger) TriggerView {
		v := show(t)
		v.LastExecution = last[t.ID]
		return v
	}), nil
}

// lastExecutions returns the newest execution of each trigger.
func (h *triggers) lastExecutions(ctx context.Context, list []agented.Trigger) (map[agented.TriggerID]*ExecutionView, error) {
	ids := make([]agented.TriggerID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	found, err := h.db.LastExecutions(ctx, ids)
	out := make(map[agented.TriggerID]*ExecutionView, len(found))
	for id, e := range found {
		v := showExecution(h.masker(), &e, false)
		out[id] = &v
	}
	return out, err
}

// tryInput is createInput for a request that supports a dry run.
type tryInput[T any] struct {
	DryRun string `query:"dry_run" enum:"true,false" doc:"true: validate the request and return the result without storing it"`
	Body   T
}

type createdTrigger struct {
	Location string `header:"Location" doc:"Path of the new trigger; empty for a dry run"`
	Body     TriggerView
}

func (h *triggers) create(ctx context.Context, in *tryInput[TriggerCreate]) (*createdTrigger, error) {
	keep := in.DryRun != "true"
	var t *agented.Trigger
	err := h.db.Together(ctx, "create trigger", keep, func(ctx context.Context) (err error) {
		t, err = h.storeNew(ctx, &in.Body.TriggerFields)
		return err
	})
	if err != nil {
		return nil, err
	}
	if keep {
		if t, err = h.db.Trigger(ctx, t.ID); err != nil {
			return nil, err
		}
	}
	out := &createdTrigger{Body: h.show(ctx, t)}
	if keep {
		out.Location = "/api/v1/triggers/" + string(t.ID)
		h.changed()
	}
	return out, nil
}

// changed notifies the parts of the server that depend on triggers.
func (h *triggers) changed() {
	h.changes.Notify(sse.ChangedTriggers)
	h.scheduler.Wake()
}

// storeNew validates and stores a new trigger.
func (h *triggers) storeNew(ctx context.Context, fields *TriggerFields) (*agented.Trigger, error) {
	now := h.now()
	t := &agented.Trigger{
		ID: agented.TriggerID(agented.NewID("trg", now)), Enabled: true,
		Spec: newSpec(agented.DefaultMaxConcurrent), CreatedAt: now, UpdatedAt: now,
	}
	if err := fields.apply(t); err != nil {
		return nil, err
	}
	if err := checkAccountRefs(ctx, h.db, &t.Spec, nil); err != nil {
		return nil, err
	}
	if err := h.schedules.apply(t, nil, fields.Schedules); err != nil {
		return nil, err
	}
	if err := h.hooks.Apply(t, fields.Webhooks); err != nil {
		return nil, err
	}
	if err := applyMessageRules(h.agents, t, fields.Messages); err != nil {
		return nil, err
	}
	if err := nameAgent(h.agents, &t.Spec); err != nil {
		return nil, err
	}
	h.sealer.SealEnv(&t.Spec, nil)
	return t, h.db.CreateTrigger(ctx, t, rest.Principal(ctx).Name)
}

func (h *triggers) get(ctx context.Context, in *triggerPath) (*rest.Tagged[TriggerView], error) {
	t, err := findTrigger(ctx, h.db, in.ID)
	if err != nil {
		return nil, err
	}
	last, err := h.lastExecutions(ctx, []agented.Trigger{*t})
	if err != nil {
		return nil, err
	}
	v := h.show(ctx, t)
	v.LastExecution = last[t.ID]
	return rest.Versioned(v, v.ETag), nil
}

type triggerChange struct {
	ID string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	rest.IfMatch
	DryRun string `query:"dry_run" enum:"true,false" doc:"true: validate the request and return the result without storing it"`
	Body   TriggerUpdate
}

func (h *triggers) update(ctx context.Context, in *triggerChange) (*rest.Tagged[TriggerView], error) {
	// Serialise read, change and write, so that concurrent changes are not
	// lost.
	h.changing.Lock()
	defer h.changing.Unlock()
	t, err := findTrigger(ctx, h.db, in.ID)
	if err != nil {
		return nil, err
	}
	if err := in.Check("trigger", triggerETag(t), func() any { return h.show(ctx, t) }); err != nil {
		return nil, err
	}
	keep, changed := in.DryRun != "true", false
	err = h.db.Together(ctx, "update trigger", keep, func(ctx context.Context) (err error) {
		changed, err = h.store(ctx, t, &in.Body.TriggerFields)
		return err
	})
	if err != nil {
		return nil, err
	}
	if changed && keep {
		h.changed()
		if t, err = h.db.Trigger(ctx, t.ID); err != nil { // as stored: its version is that of the next GET
			return nil, err
		}
	}
	v := h.show(ctx, t)
	return rest.Versioned(v, v.ETag), nil
}

// store applies the fields to t, and stores it if it has changed. The
// caller holds h.changing.
func (h *triggers) store(ctx context.Context, t *agented.Trigger, fields *TriggerFields) (changed bool, err error) {
	before := *t
	if err := fields.apply(t); err != nil {
		return false, err
	}
	if err := checkAccountRefs(ctx, h.db, &t.Spec, &before.Spec); err != nil {
		return false, err
	}
	if err := h.schedules.apply(t, &before, fields.Schedules); err != nil {
		return false, err
	}
	if err := h.hooks.Apply(t, fields.Webhooks); err != nil {
		return false, err
	}
	if err := applyMessageRules(h.agents, t, fields.Messages); err != nil {
		return false, err
	}
	if err := nameAgent(h.agents, &t.Spec); err != nil {
		return false, err
	}
	h.sealer.SealEnv(&t.Spec, before.Spec.Env)
	if sameTrigger(&before, t) {
		return false, nil
	}
	return true, h.db.UpdateTrigger(ctx, t, rest.Principal(ctx).Name)
}

func (h *triggers) remove(ctx context.Context, in *triggerPath) (*struct{}, error) {
	id, err := triggerID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := h.db.DeleteTrigger(ctx, id, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	h.changes.Notify(sse.ChangedTriggers)
	return nil, nil
}

// routes returns the routes of triggers. Changing a trigger means
// running any command as the server's user, so it requires an admin.
func (h *triggers) routes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/triggers", viewer, h.list, rest.About{
			ID: "list-triggers", Tag: "triggers", Summary: "List triggers",
			Text: "Lists triggers by name.",
		}).Reaching(rest.Filtered),
		rest.Op("POST /api/v1/triggers", admin, h.create, rest.About{
			ID: "create-trigger", Tag: "triggers", Summary: "Create a trigger", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The smallest valid body is `{\"name\":\"hello\",\"backend\":\"command\",\"command\":[\"sh\",\"-c\",\"echo hi\"]}`.",
		}),
		rest.Op("GET /api/v1/triggers/{id}", viewer, h.get, rest.About{
			ID: "get-trigger", Tag: "triggers", Summary: "Show a trigger", Errors: []int{http.StatusNotFound},
			Text: "Returns one trigger. Secret values of variables are never returned.",
		}).Reaching(rest.OwnTrigger),
		rest.Op("PATCH /api/v1/triggers/{id}", admin, h.update, rest.About{
			ID: "update-trigger", Tag: "triggers", Summary: "Update a trigger", Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
			Text: "Takes a JSON merge patch: omitted fields are unchanged, null resets a field to its default. `env` is replaced as a whole; the value `***` keeps the stored value of that name, and null passes the server's variable. Existing executions keep the settings that they were fired with.",
		}),
		rest.Op("DELETE /api/v1/triggers/{id}", admin, h.remove, rest.About{
			ID: "delete-trigger", Tag: "triggers", Summary: "Delete a trigger", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Cancels its pending executions. Running executions continue, and the history remains.",
		}),
		rest.Op("POST /api/v1/triggers/{id}/run", operator, h.run, rest.About{
			ID: "run-trigger", Tag: "triggers", Summary: "Run a trigger", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Responds once the execution is stored durably. The body is optional. Returns 409 if the trigger is disabled, or if its overlap rule is skip while an earlier execution has not ended.",
		}).Reaching(rest.OwnTrigger),
		rest.Op("GET /api/v1/examples", viewer, h.listExamples, rest.About{
			ID: "list-examples", Tag: "triggers", Summary: "List example triggers",
			Text: "Trigger files to start from, sorted by name. `agented example show NAME` prints the same files.",
		}),
	}
}
