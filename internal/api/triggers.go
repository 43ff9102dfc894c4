package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// kept stands for the value of a variable in answers, and in a change for "as
// it is": values go in and never come out.
const kept = "***"

// TriggerView is a trigger as the API shows it. Names stay; more may be added.
type TriggerView struct {
	ID             agented.TriggerID   `json:"id" example:"trg-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Name           string              `json:"name" doc:"Unique, ignoring case"`
	Enabled        bool                `json:"enabled"`
	Backend        string              `json:"backend" enum:"command,claude,codex,gemini,opencode,anthropic"`
	Command        []string            `json:"command" doc:"Backend command: the program and its arguments"`
	TTY            bool                `json:"tty" doc:"Backend command: run on a pseudo-terminal"`
	Prompt         string              `json:"prompt" doc:"Template of the prompt"`
	Model          string              `json:"model" doc:"Empty: the CLI's own default"`
	Permission     agented.Permission  `json:"permission" doc:"read, edit or full; empty for backend command"`
	Args           []string            `json:"args" doc:"Further arguments for the CLI"`
	WorkingDir     string              `json:"working_dir" doc:"Empty: a directory of the execution's own"`
	Paths          []string            `json:"paths" doc:"Further directories that the agent may use"`
	TimeoutSeconds int                 `json:"timeout_seconds" doc:"0: no limit"`
	SilenceSeconds int                 `json:"silence_timeout_seconds" doc:"0: no limit"`
	Env            map[string]*string  `json:"env" doc:"Variables for the process. Values are never shown: *** stands for one, null passes the server's variable of that name on"`
	MaxConcurrent  int                 `json:"max_concurrent" doc:"0: only the node's limit"`
	Overlap        agented.Overlap     `json:"overlap" enum:"queue,skip,replace"`
	Account        agented.AccountID   `json:"account" doc:"Id or name of the account that it runs on; empty: any of the backend"`
	Fallback       []agented.Choice    `json:"fallback" doc:"What it may run on when nothing before it is ready, in order"`
	Retry          agented.RetryPolicy `json:"retry" doc:"What follows an attempt that did not succeed; fields that are left out have their defaults"`
	Workspace      *agented.Workspace  `json:"workspace,omitempty" doc:"A git repository to work in; left out: none"`
	CeilingUSD     float64             `json:"ceiling_usd" doc:"Cost at which a running execution is paused and asks; 0: none"`
	Schedules      []ScheduleView      `json:"schedules" doc:"When it fires by itself"`
	NextRunAt      *time.Time          `json:"next_run_at" nullable:"true" doc:"When the first of the schedules will fire; null when nothing is to come"`
	Webhooks       []WebhookView       `json:"webhooks" doc:"Which calls from outside fire it"`
	Messages       []MessageRuleView   `json:"messages" doc:"Which messages fire it"`
	Agent          string              `json:"agent" doc:"Name of the agent that gives prompt and backend settings; empty: none"`
	WebhookURL     string              `json:"webhook_url" doc:"Path at which it takes them; empty when it takes none"`
	LastExecution  *ExecutionView      `json:"last_execution,omitempty" doc:"The newest one. Left out of answers about a change, and when it never fired"`
	CreatedAt      time.Time           `json:"created_at"`
	UpdatedAt      time.Time           `json:"updated_at"`
}

func viewTrigger(t *agented.Trigger) TriggerView {
	v := TriggerView{
		ID: t.ID, Name: t.Name, Enabled: t.Enabled, Backend: t.Spec.Backend, Command: list(t.Spec.Command),
		TTY: t.Spec.TTY, Prompt: t.Spec.Prompt, Model: t.Spec.Model, Permission: t.Spec.Permission,
		Args: list(t.Spec.Args), WorkingDir: t.Spec.WorkingDir, Paths: list(t.Spec.Paths),
		TimeoutSeconds: t.Spec.TimeoutSeconds, SilenceSeconds: t.Spec.SilenceSeconds, Env: map[string]*string{},
		MaxConcurrent: t.Spec.MaxConcurrent, Overlap: t.Spec.Overlap,
		Account: t.Spec.Account, Fallback: list(t.Spec.Fallback), Retry: t.Spec.Retry,
		Workspace: t.Spec.Workspace, CeilingUSD: t.Spec.CeilingUSD,
		CreatedAt: shown(t.CreatedAt), UpdatedAt: shown(t.UpdatedAt),
	}
	for name, value := range t.Spec.Env {
		v.Env[name] = nil
		if value != nil {
			mask := kept
			v.Env[name] = &mask
		}
	}
	return v
}

// showTrigger is a trigger as the asker may see it. Somebody may have written a
// secret into a command or a prompt: whoever may not change the trigger sees a
// mask in its place. Whoever may, gets back what was written, or reading and
// writing it again would change it.
func (s *Server) showTrigger(ctx context.Context, t *agented.Trigger) TriggerView {
	v := viewTrigger(t)
	v.Schedules, v.NextRunAt = s.showSchedules(ctx, t)
	v.Webhooks, v.WebhookURL = viewWebhooks(t)
	v.Messages = s.viewMessageRules(t)
	if t.Spec.Agent != "" {
		v.Agent = s.o.Dispatch.AgentName(agented.AgentID(t.Spec.Agent))
	}
	if principal(ctx).May(agented.RoleAdmin) {
		return v
	}
	v.Prompt = s.mask(v.Prompt)
	v.Command, v.Args = slices.Clone(v.Command), slices.Clone(v.Args)
	for _, l := range [][]string{v.Command, v.Args} {
		for i := range l {
			l[i] = s.mask(l[i])
		}
	}
	return v
}

// list is l, and [] instead of null in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// SpecFields is what to run, in requests. A field that is left out has its
// default in a new trigger and stays as it is in a change; null is the default.
type SpecFields struct {
	Agent          optional[string]              `json:"agent,omitzero" doc:"Id or name of an agent, in place of backend, model, permission, args, directories and env"`
	Backend        optional[string]              `json:"backend,omitzero" doc:"command, claude, codex, gemini, opencode or anthropic"`
	Command        optional[[]string]            `json:"command,omitzero" doc:"Backend command: the program and its arguments, for example [\"sh\",\"-c\",\"echo hi\"]"`
	TTY            optional[bool]                `json:"tty,omitzero" doc:"Backend command: run on a pseudo-terminal. Default false"`
	Prompt         optional[string]              `json:"prompt,omitzero" doc:"What the agent shall do; backend command gets it on standard input. {message}, {vars.NAME} and the other placeholders are filled when it fires; {{name}} is the text itself"`
	Model          optional[string]              `json:"model,omitzero" doc:"Model for the agent. Default: the CLI's own"`
	Permission     optional[agented.Permission]  `json:"permission,omitzero" doc:"How freely the agent acts without asking: read, edit (default) or full"`
	Args           optional[[]string]            `json:"args,omitzero" doc:"Further arguments, passed to the CLI as they are"`
	WorkingDir     optional[string]              `json:"working_dir,omitzero" doc:"Absolute path. Default: a directory of the execution's own"`
	Paths          optional[[]string]            `json:"paths,omitzero" doc:"Further directories, absolute; {paths} in a prompt"`
	TimeoutSeconds optional[int]                 `json:"timeout_seconds,omitzero" doc:"Wall-clock limit; 0 is none. Default 3600"`
	SilenceSeconds optional[int]                 `json:"silence_timeout_seconds,omitzero" doc:"Limit for printing nothing; 0 is none. Default 0"`
	Env            optional[map[string]*string]  `json:"env,omitzero" doc:"Variables for the process; replaces all earlier ones. null as value passes the server's variable of that name on, if that name is allowed. In a change *** keeps the value that the name has"`
	MaxConcurrent  optional[int]                 `json:"max_concurrent,omitzero" doc:"Executions at once; 0 is only the node's limit. Default 1 for triggers, 0 for ad-hoc executions"`
	Overlap        optional[agented.Overlap]     `json:"overlap,omitzero" doc:"When an earlier execution has not ended: queue (default), skip or replace"`
	Account        optional[agented.AccountID]   `json:"account,omitzero" doc:"Id or name of the account to run on. Default: any of the backend"`
	Fallback       optional[[]agented.Choice]    `json:"fallback,omitzero" doc:"What it may run on when nothing before it is ready, in order"`
	Retry          optional[agented.RetryPolicy] `json:"retry,omitzero" doc:"What follows an attempt that did not succeed; replaced as a whole. By default limits, overloads and broken networks are waited out, and a failure of the agent is final"`
	Workspace      optional[*agented.Workspace]  `json:"workspace,omitzero" doc:"A git repository to work in, in place of working_dir: each execution gets a checkout of its own, at the event's commit if there is one"`
	CeilingUSD     optional[float64]             `json:"ceiling_usd,omitzero" doc:"Cost at which a running execution is paused and asks; 0 (default) is none"`
}

// apply changes a spec as the request says. maxConcurrent is the default.
func (f *SpecFields) apply(s *agented.Spec, maxConcurrent int) error {
	f.Backend.into(&s.Backend, "")
	f.Agent.into(&s.Agent, "")
	f.Command.into(&s.Command, nil)
	f.TTY.into(&s.TTY, false)
	f.Prompt.into(&s.Prompt, "")
	f.Model.into(&s.Model, "")
	f.Permission.into(&s.Permission, "")
	f.Args.into(&s.Args, nil)
	f.WorkingDir.into(&s.WorkingDir, "")
	f.Paths.into(&s.Paths, nil)
	f.TimeoutSeconds.into(&s.TimeoutSeconds, agented.DefaultTimeoutSeconds)
	f.SilenceSeconds.into(&s.SilenceSeconds, 0)
	f.MaxConcurrent.into(&s.MaxConcurrent, maxConcurrent)
	f.Overlap.into(&s.Overlap, "")
	f.Account.into(&s.Account, "")
	f.Fallback.into(&s.Fallback, nil)
	f.Retry.into(&s.Retry, agented.RetryPolicy{})
	f.Workspace.into(&s.Workspace, nil)
	f.CeilingUSD.into(&s.CeilingUSD, 0)
	if s.Backend == agented.BackendCommand && f.Backend.set && !f.Permission.set {
		s.Permission = "" // of the agent that it was before
	}
	*s = s.WithDefaults()
	if !f.Env.set {
		return nil
	}
	old := s.Env
	s.Env = nil
	var bad []agented.Field
	for name, value := range f.Env.value {
		if value != nil && *value == kept {
			was, ok := old[name]
			if !ok || was == nil {
				bad = append(bad, agented.Field{Path: "env." + clip(name, 60), Text: "*** keeps a value, and this variable has none: send the value"})
				continue
			}
			value = was
		}
		if s.Env == nil {
			s.Env = map[string]*string{}
		}
		s.Env[name] = value
	}
	return agented.InvalidFields(bad)
}

// TriggerFields is a trigger in requests.
type TriggerFields struct {
	Name    optional[string] `json:"name,omitzero" doc:"Unique, ignoring case; at most 200 bytes"`
	Enabled optional[bool]   `json:"enabled,omitzero" doc:"Default true"`
	SpecFields
	Schedules optional[[]ScheduleFields]    `json:"schedules,omitzero" doc:"When it fires by itself; replaces all earlier ones. One that asks for the same as before keeps its id and its state"`
	Messages  optional[[]MessageRuleFields] `json:"messages,omitzero" doc:"Which messages fire it; replaces all earlier ones"`
	Webhooks  optional[[]WebhookFields]     `json:"webhooks,omitzero" doc:"Which calls from outside fire it; replaces all earlier ones. One with a known id keeps its secret when that is left out or ***"`
}

func (f *TriggerFields) apply(t *agented.Trigger) error {
	f.Name.into(&t.Name, "")
	f.Enabled.into(&t.Enabled, true)
	if err := f.SpecFields.apply(&t.Spec, agented.DefaultMaxConcurrent); err != nil {
		return err
	}
	return agented.InvalidFields(t.Validate())
}

// TriggerCreate is a new trigger.
type TriggerCreate struct{ TriggerFields }

// TriggerUpdate is a change of a trigger (a JSON merge patch, but env is
// replaced as a whole).
type TriggerUpdate struct{ TriggerFields }

// newSpec is a spec with the defaults that a number's zero cannot stand for.
func newSpec(maxConcurrent int) agented.Spec {
	return agented.Spec{TimeoutSeconds: agented.DefaultTimeoutSeconds, MaxConcurrent: maxConcurrent}
}

// ListOf is a page of a list.
type ListOf[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor" nullable:"true" doc:"Cursor of the next page; null on the last one"`
}

type listOutput[T any] struct{ Body ListOf[T] }

// page makes the answer of a list.
func page[T, V any](items []T, next string, view func(*T) V) *listOutput[V] {
	out := &listOutput[V]{Body: ListOf[V]{Items: make([]V, len(items))}}
	for i := range items {
		out.Body.Items[i] = view(&items[i])
	}
	if next != "" {
		out.Body.NextCursor = &next
	}
	return out
}

type output[T any] struct{ Body T }

type triggerPath struct {
	ID string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
}

// triggerID checks an id from a path before anything is done with it.
func triggerID(id string) (agented.TriggerID, error) {
	if !agented.ValidID("trg", id) {
		return "", agented.Errorf(agented.NotFound, "no trigger has this id; GET /api/v1/triggers?name=NAME finds one by its name")
	}
	return agented.TriggerID(id), nil
}

type triggerListInput struct {
	Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor  string `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
	Name    string `query:"name" maxLength:"200" doc:"Only the trigger of this name, ignoring case"`
	Query   string `query:"q" maxLength:"200" doc:"Only names that start with this, ignoring case"`
	Enabled string `query:"enabled" enum:"true,false" doc:"Only enabled ones, or only others"`
}

func (s *Server) listTriggers(ctx context.Context, in *triggerListInput) (*listOutput[TriggerView], error) {
	show := func(t *agented.Trigger) TriggerView { return s.showTrigger(ctx, t) }
	if in.Name != "" {
		t, err := s.o.DB.TriggerByName(ctx, in.Name)
		switch {
		case agented.KindOf(err) == agented.NotFound && err != nil:
			return page(nil, "", show), nil
		case err != nil:
			return nil, err
		case in.Enabled != "" && t.Enabled != (in.Enabled == "true"),
			!strings.HasPrefix(strings.ToLower(t.Name), strings.ToLower(in.Query)):
			return page(nil, "", show), nil
		}
		return page([]agented.Trigger{*t}, "", show), nil
	}
	f := store.TriggerFilter{Query: in.Query}
	if in.Enabled != "" {
		on := in.Enabled == "true"
		f.Enabled = &on
	}
	items, next, err := s.o.DB.Triggers(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	last, err := s.lastExecutions(ctx, items)
	if err != nil {
		return nil, err
	}
	return page(items, next, func(t *agented.Trigger) TriggerView {
		v := show(t)
		v.LastExecution = last[t.ID]
		return v
	}), nil
}

// lastExecutions are the newest executions of triggers.
func (s *Server) lastExecutions(ctx context.Context, list []agented.Trigger) (map[agented.TriggerID]*ExecutionView, error) {
	ids := make([]agented.TriggerID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	found, err := s.o.DB.LastExecutions(ctx, ids)
	out := make(map[agented.TriggerID]*ExecutionView, len(found))
	for id, e := range found {
		v := s.showExecution(&e, false)
		out[id] = &v
	}
	return out, err
}

// inQuery moves the fields of an Invalid error to where a list has them.
func inQuery(err error) error {
	e, ok := err.(*agented.Error)
	if !ok || len(e.Fields) == 0 {
		return err
	}
	moved := *e
	moved.Fields = nil
	for _, f := range e.Fields {
		moved.Fields = append(moved.Fields, agented.Field{Path: "query." + f.Path, Text: f.Text})
	}
	return &moved
}

type createInput[T any] struct{ Body T }

type createdTrigger struct {
	Location string `header:"Location" doc:"Path of the new trigger"`
	Body     TriggerView
}

func (s *Server) createTrigger(ctx context.Context, in *createInput[TriggerCreate]) (*createdTrigger, error) {
	now := s.now()
	t := &agented.Trigger{
		ID: agented.TriggerID(agented.NewID("trg", now)), Enabled: true,
		Spec: newSpec(agented.DefaultMaxConcurrent), CreatedAt: now, UpdatedAt: now,
	}
	if err := in.Body.apply(t); err != nil {
		return nil, err
	}
	if err := s.applySchedules(t, nil, in.Body.Schedules); err != nil {
		return nil, err
	}
	if err := s.applyWebhooks(t, in.Body.Webhooks); err != nil {
		return nil, err
	}
	if err := s.applyMessageRules(t, in.Body.Messages); err != nil {
		return nil, err
	}
	if err := s.nameAgent(&t.Spec); err != nil {
		return nil, err
	}
	s.sealEnv(&t.Spec, nil)
	if err := s.o.DB.CreateTrigger(ctx, t, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changes.tell(changedTriggers)
	s.o.Dispatch.WakeSchedules()
	return &createdTrigger{Location: "/api/v1/triggers/" + string(t.ID), Body: s.showTrigger(ctx, t)}, nil
}

func (s *Server) getTrigger(ctx context.Context, in *triggerPath) (*output[TriggerView], error) {
	t, err := s.trigger(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	last, err := s.lastExecutions(ctx, []agented.Trigger{*t})
	if err != nil {
		return nil, err
	}
	v := s.showTrigger(ctx, t)
	v.LastExecution = last[t.ID]
	return &output[TriggerView]{v}, nil
}

func (s *Server) trigger(ctx context.Context, id string) (*agented.Trigger, error) {
	tid, err := triggerID(id)
	if err != nil {
		return nil, err
	}
	return s.o.DB.Trigger(ctx, tid)
}

type triggerChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	Body TriggerUpdate
}

func (s *Server) updateTrigger(ctx context.Context, in *triggerChange) (*output[TriggerView], error) {
	// Read, change, write: two changes at once must not undo one another.
	s.changing.Lock()
	defer s.changing.Unlock()
	t, err := s.trigger(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	before := *t
	if err := in.Body.apply(t); err != nil {
		return nil, err
	}
	if err := s.applySchedules(t, &before, in.Body.Schedules); err != nil {
		return nil, err
	}
	if err := s.applyWebhooks(t, in.Body.Webhooks); err != nil {
		return nil, err
	}
	if err := s.applyMessageRules(t, in.Body.Messages); err != nil {
		return nil, err
	}
	if err := s.nameAgent(&t.Spec); err != nil {
		return nil, err
	}
	s.sealEnv(&t.Spec, before.Spec.Env)
	if sameTrigger(&before, t) {
		return &output[TriggerView]{s.showTrigger(ctx, t)}, nil
	}
	if err := s.o.DB.UpdateTrigger(ctx, t, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changes.tell(changedTriggers)
	s.o.Dispatch.WakeSchedules()
	return &output[TriggerView]{s.showTrigger(ctx, t)}, nil
}

func (s *Server) deleteTrigger(ctx context.Context, in *triggerPath) (*struct{}, error) {
	id, err := triggerID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.o.DB.DeleteTrigger(ctx, id, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changes.tell(changedTriggers)
	return nil, nil
}
