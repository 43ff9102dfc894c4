package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/store"
)

// AgentDirectory finds agents by id and by name.
type AgentDirectory interface {
	ReloadAgents(ctx context.Context) error
	AgentName(id agented.AgentID) string
	AgentID(idOrName string) agented.AgentID
}

// agents handles the requests about agents.
type agents struct {
	db        *store.DB
	directory AgentDirectory
	sealer    auth.Sealer
	env       envViews
	changes   *sse.Changes
	now       func() time.Time
	mask      func(string) string

	changing sync.Mutex // held while an agent is read, changed and written
}

// routes returns the routes of agents.
func (h *agents) routes() []rest.Route {
	const viewer, admin = agented.RoleViewer, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/agents", viewer, h.list, rest.About{
			ID: "list-agents", Tag: "agents", Summary: "List agents", Text: "Lists the agents by name.",
		}),
		rest.Op("POST /api/v1/agents", admin, h.create, rest.About{
			ID: "create-agent", Tag: "agents", Summary: "Create an agent", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The smallest valid body is `{\"name\":\"reviewer\",\"backend\":\"claude\"}`.",
		}),
		rest.Op("GET /api/v1/agents/{id}", viewer, h.get, rest.About{
			ID: "get-agent", Tag: "agents", Summary: "Show an agent", Errors: []int{http.StatusNotFound},
			Text: "Returns one agent by id or name. Secret values of variables are never returned.",
		}),
		rest.Op("PATCH /api/v1/agents/{id}", admin, h.update, rest.About{
			ID: "update-agent", Tag: "agents", Summary: "Update an agent", Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
			Text: "Takes a JSON merge patch: omitted fields are unchanged, null resets a field to its default. `env` is replaced as a whole. Existing executions and turns keep the settings that they started with.",
		}),
		rest.Op("DELETE /api/v1/agents/{id}", admin, h.remove, rest.About{
			ID: "delete-agent", Tag: "agents", Summary: "Delete an agent", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Its conversations and messages remain readable. Triggers that name it return 409 until they are changed.",
		}),
	}
}

// AgentView is an agent in responses. Names are stable; fields may be added.
type AgentView struct {
	ID             agented.AgentID     `json:"id" example:"agt-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Name           string              `json:"name" doc:"Unique, ignoring case; part of the agent's address"`
	Role           string              `json:"role" doc:"One line that describes the agent"`
	Goals          string              `json:"goals" doc:"What it works towards, and how; used as the system prompt"`
	Enabled        bool                `json:"enabled"`
	Backend        string              `json:"backend"`
	Account        agented.AccountID   `json:"account" doc:"Empty: any account of the backend"`
	Model          string              `json:"model" doc:"Empty: the CLI's default"`
	Fallback       []agented.Choice    `json:"fallback" doc:"Choices that are tried in order when no earlier one is ready"`
	Permission     agented.Permission  `json:"permission" doc:"read, edit or full"`
	Args           []string            `json:"args" doc:"Additional arguments for the CLI, such as the tools that it may use"`
	WorkingDir     string              `json:"working_dir" doc:"Empty: a directory of the conversation"`
	Workspace      *agented.Workspace  `json:"workspace,omitempty" doc:"A git repository to work in"`
	Paths          []string            `json:"paths" doc:"Additional directories that the agent may use"`
	TimeoutSeconds int                 `json:"timeout_seconds" doc:"Time limit of one turn in seconds; 0 means no limit"`
	SilenceSeconds int                 `json:"silence_timeout_seconds" doc:"Limit on seconds without output; 0 means no limit"`
	TrustRepo      bool                `json:"trust_repository" doc:"Use the agent files of the checkout (CLAUDE.md, .claude, .mcp.json and so on) as they are. Otherwise they come from the default branch, and project settings, hooks and servers are off"`
	Sandbox        agented.Sandbox     `json:"sandbox" doc:"Isolation of the processes: off, guard or strict; empty: the server's default (AGENTED_SANDBOX)"`
	Network        *agented.Network    `json:"network,omitempty" doc:"What the processes may reach at sandbox level strict besides the API of the model and the host of the workspace; omitted: nothing"`
	Limits         agented.Limits      `json:"limits" doc:"Limits of all processes of a turn together; 0 or absent: the server's default"`
	CeilingUSD     float64             `json:"ceiling_usd" doc:"Cost at which a running turn is paused with a question; 0 means none"`
	Env            map[string]EnvValue `json:"env" doc:"Variables for the process. *** stands for each secret value, {value, secret: false} is a value that is not secret, null passes the server's variable of that name"`
	CreatedAt      time.Time           `json:"created_at"`
	UpdatedAt      time.Time           `json:"updated_at"`
	ETag           string              `json:"etag" doc:"Version of the object, for If-Match in an update"`
}

func (h *agents) show(ctx context.Context, a *agented.Agent) AgentView {
	admin := rest.Principal(ctx).May(agented.RoleAdmin)
	v := AgentView{
		ID: a.ID, Name: a.Name, Role: a.Role, Goals: a.Goals, Enabled: a.Enabled, Backend: a.Spec.Backend,
		Account: a.Spec.Account, Model: a.Spec.Model, Fallback: rest.NotNil(a.Spec.Fallback), Permission: a.Spec.Permission,
		Args: rest.NotNil(a.Spec.Args), WorkingDir: a.Spec.WorkingDir, Workspace: a.Spec.Workspace, TrustRepo: a.Spec.TrustRepo, Paths: rest.NotNil(a.Spec.Paths),
		TimeoutSeconds: a.Spec.TimeoutSeconds, SilenceSeconds: a.Spec.SilenceSeconds, Sandbox: a.Spec.Sandbox, Network: a.Spec.Network, Limits: a.Spec.Limits, CeilingUSD: a.Spec.CeilingUSD,
		Env: h.env.show(&a.Spec, admin), CreatedAt: rest.Time(a.CreatedAt), UpdatedAt: rest.Time(a.UpdatedAt), ETag: agentETag(a),
	}
	if admin {
		return v
	}
	v.Goals = h.mask(v.Goals)
	args := make([]string, len(v.Args))
	for i, a := range v.Args {
		args[i] = h.mask(a)
	}
	v.Args = args
	return v
}

// AgentFields are the fields of an agent in requests. An omitted field has its
// default in a new agent and is unchanged in an update; null is the default.
type AgentFields struct {
	Name           rest.Optional[string]              `json:"name,omitzero" doc:"Letters, digits, -, _ and .; at most 64. Unique, ignoring case"`
	Role           rest.Optional[string]              `json:"role,omitzero" doc:"One line that describes the agent"`
	Goals          rest.Optional[string]              `json:"goals,omitzero" doc:"What it works towards, and how; used as the system prompt"`
	Enabled        rest.Optional[bool]                `json:"enabled,omitzero" doc:"Default true"`
	Backend        rest.Optional[string]              `json:"backend,omitzero" doc:"An agent CLI, such as claude"`
	Account        rest.Optional[agented.AccountID]   `json:"account,omitzero" doc:"Id or name of an account. Default: any account of the backend"`
	Model          rest.Optional[string]              `json:"model,omitzero" doc:"Default: the CLI's default"`
	Fallback       rest.Optional[[]agented.Choice]    `json:"fallback,omitzero" doc:"Choices that are tried in order when no earlier one is ready"`
	Permission     rest.Optional[agented.Permission]  `json:"permission,omitzero" doc:"read, edit (default) or full"`
	Args           rest.Optional[[]string]            `json:"args,omitzero" doc:"Additional arguments, passed to the CLI unchanged, for example the tools that it may use"`
	WorkingDir     rest.Optional[string]              `json:"working_dir,omitzero" doc:"Absolute path. Default: a directory of the conversation"`
	Workspace      rest.Optional[*agented.Workspace]  `json:"workspace,omitzero" doc:"A git repository to work in"`
	Paths          rest.Optional[[]string]            `json:"paths,omitzero" doc:"Additional directories, absolute paths"`
	TimeoutSeconds rest.Optional[int]                 `json:"timeout_seconds,omitzero" doc:"Wall-clock limit of one turn in seconds; 0 means no limit. Default 3600"`
	SilenceSeconds rest.Optional[int]                 `json:"silence_timeout_seconds,omitzero" doc:"Limit on seconds without output; 0 means no limit. Default 0"`
	TrustRepo      rest.Optional[bool]                `json:"trust_repository,omitzero" doc:"Use the agent files of the checkout (CLAUDE.md, .claude, .mcp.json and so on) as they are. Otherwise they come from the default branch, and project settings, hooks and servers are off"`
	Sandbox        rest.Optional[agented.Sandbox]     `json:"sandbox,omitzero" doc:"Isolation of the processes from the server and its data: off, guard or strict. Default: the server's setting AGENTED_SANDBOX"`
	Network        rest.Optional[*agented.Network]    `json:"network,omitzero" doc:"What the processes may reach at sandbox level strict besides the API of the model and the host of the workspace; replaced as a whole. Default: nothing"`
	Limits         rest.Optional[agented.Limits]      `json:"limits,omitzero" doc:"Limits of all processes of a turn together; replaced as a whole. What is 0 or absent has the server's default"`
	CeilingUSD     rest.Optional[float64]             `json:"ceiling_usd,omitzero" doc:"Cost at which a running turn is paused with a question; 0 means none"`
	Env            rest.Optional[map[string]EnvValue] `json:"env,omitzero" doc:"Variables for the process. Replaces all stored ones. A value is a secret, which is masked in everything that executions print, unless it is written as {\"value\": \"…\", \"secret\": false}. In an update, the value *** keeps the stored value of that name"`
}

func (f *AgentFields) apply(a *agented.Agent) error {
	before := a.Name
	f.Name.Into(&a.Name, "")
	f.Role.Into(&a.Role, "")
	f.Goals.Into(&a.Goals, "")
	f.Enabled.Into(&a.Enabled, true)
	f.Account.Into(&a.Spec.Account, "")
	f.Fallback.Into(&a.Spec.Fallback, nil)
	f.Workspace.Into(&a.Spec.Workspace, nil)
	f.CeilingUSD.Into(&a.Spec.CeilingUSD, 0)
	f.TrustRepo.Into(&a.Spec.TrustRepo, false)
	spec := SpecFields{
		Backend: f.Backend, Model: f.Model, Permission: f.Permission, Args: f.Args, WorkingDir: f.WorkingDir, Paths: f.Paths,
		TimeoutSeconds: f.TimeoutSeconds, SilenceSeconds: f.SilenceSeconds, Sandbox: f.Sandbox, Network: f.Network, Limits: f.Limits, Env: f.Env,
	}
	if err := spec.apply(&a.Spec, 0); err != nil {
		return err
	}
	return agented.InvalidFields(checkName(a.Validate(), before, a.Name))
}

// AgentCreate is the request to create an agent.
type AgentCreate struct{ AgentFields }

// AgentUpdate is the request to update an agent: a JSON merge patch, except
// that env is replaced as a whole.
type AgentUpdate struct{ AgentFields }

type agentListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
}

func (h *agents) list(ctx context.Context, in *agentListInput) (*rest.ListOutput[AgentView], error) {
	items, next, err := h.db.Agents(ctx, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, func(a *agented.Agent) AgentView { return h.show(ctx, a) }), nil
}

type createdAgent struct {
	Location string `header:"Location" doc:"Path of the new agent; empty for a dry run"`
	Body     AgentView
}

func (h *agents) create(ctx context.Context, in *tryInput[AgentCreate]) (*createdAgent, error) {
	keep := in.DryRun != "true"
	var a *agented.Agent
	err := h.db.Together(ctx, "create agent", keep, func(ctx context.Context) (err error) {
		a, err = h.storeNew(ctx, &in.Body.AgentFields)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &createdAgent{Body: h.show(ctx, a)}
	if keep {
		out.Location = "/api/v1/agents/" + string(a.ID)
		err = h.changed(ctx)
	}
	return out, err
}

// storeNew validates and stores a new agent.
func (h *agents) storeNew(ctx context.Context, fields *AgentFields) (*agented.Agent, error) {
	a := &agented.Agent{Enabled: true, Spec: newSpec(0), CreatedAt: h.now()}
	if err := fields.apply(a); err != nil {
		return nil, err
	}
	if err := checkAccountRefs(ctx, h.db, &a.Spec, nil); err != nil {
		return nil, err
	}
	h.sealer.SealEnv(&a.Spec, nil)
	return a, h.db.CreateAgent(ctx, a, rest.Principal(ctx).Name)
}

type agentPath struct {
	ID string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
}

func (h *agents) get(ctx context.Context, in *agentPath) (*rest.Tagged[AgentView], error) {
	a, err := h.db.Agent(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v := h.show(ctx, a)
	return rest.Versioned(v, v.ETag), nil
}

type agentChange struct {
	ID string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
	rest.IfMatch
	DryRun string `query:"dry_run" enum:"true,false" doc:"true: validate the request and return the result without storing it"`
	Body   AgentUpdate
}

func (h *agents) update(ctx context.Context, in *agentChange) (*rest.Tagged[AgentView], error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	a, err := h.db.Agent(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := in.Check("agent", agentETag(a), func() any { return h.show(ctx, a) }); err != nil {
		return nil, err
	}
	keep, changed := in.DryRun != "true", false
	err = h.db.Together(ctx, "update agent", keep, func(ctx context.Context) (err error) {
		changed, err = h.store(ctx, a, &in.Body.AgentFields)
		return err
	})
	if err == nil && changed && keep {
		if err = h.changed(ctx); err == nil {
			a, err = h.db.Agent(ctx, string(a.ID)) // as stored: its version is that of the next GET
		}
	}
	if err != nil {
		return nil, err
	}
	v := h.show(ctx, a)
	return rest.Versioned(v, v.ETag), nil
}

// store applies the fields to a, and stores it if it has changed. The
// caller holds h.changing.
func (h *agents) store(ctx context.Context, a *agented.Agent, fields *AgentFields) (changed bool, err error) {
	before := *a
	if err := fields.apply(a); err != nil {
		return false, err
	}
	if err := checkAccountRefs(ctx, h.db, &a.Spec, &before.Spec); err != nil {
		return false, err
	}
	h.sealer.SealEnv(&a.Spec, before.Spec.Env)
	if sameAgent(&before, a) {
		return false, nil
	}
	return true, h.db.UpdateAgent(ctx, a, rest.Principal(ctx).Name)
}

func (h *agents) remove(ctx context.Context, in *agentPath) (*struct{}, error) {
	a, err := h.db.Agent(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := h.db.DeleteAgent(ctx, a.ID, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	return nil, h.changed(ctx)
}

// changed notifies the parts of the server that depend on agents.
func (h *agents) changed(ctx context.Context) error {
	h.changes.Notify(sse.ChangedAgents)
	return h.directory.ReloadAgents(ctx)
}

// nameAgent replaces the agent's name in a spec with its id. It returns an
// error for the client if the agent does not exist.
func nameAgent(directory AgentDirectory, spec *agented.Spec) error {
	if spec.Agent == "" {
		return nil
	}
	id := directory.AgentID(spec.Agent)
	if id == "" {
		return agented.InvalidFields([]agented.Field{{Path: "agent", Text: "is not an agent: create it first, or check the name"}})
	}
	spec.Agent = string(id)
	return nil
}
