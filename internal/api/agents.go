package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// agentRoutes are the ways to agents.
func (s *Server) agentRoutes() []route {
	const viewer, admin = agented.RoleViewer, agented.RoleAdmin
	return []route{
		op("GET /api/v1/agents", viewer, s.listAgents, about{
			id: "list-agents", tag: "agents", summary: "List agents", text: "In the order of their names.",
		}),
		op("POST /api/v1/agents", admin, s.createAgent, about{
			id: "create-agent", tag: "agents", summary: "Create an agent", status: http.StatusCreated, errors: []int{http.StatusConflict},
			text: "The least that works is `{\"name\":\"reviewer\",\"backend\":\"claude\"}`.",
		}),
		op("GET /api/v1/agents/{id}", viewer, s.getAgent, about{
			id: "get-agent", tag: "agents", summary: "Show an agent", errors: []int{http.StatusNotFound},
			text: "By id or name. Values of variables are never shown.",
		}),
		op("PATCH /api/v1/agents/{id}", admin, s.updateAgent, about{
			id: "update-agent", tag: "agents", summary: "Change an agent", errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "A JSON merge patch: what is left out stays, null resets a field to its default. `env` is replaced as a whole. Executions and turns that exist keep what they were begun with.",
		}),
		op("DELETE /api/v1/agents/{id}", admin, s.deleteAgent, about{
			id: "delete-agent", tag: "agents", summary: "Delete an agent", status: http.StatusNoContent, errors: []int{http.StatusNotFound},
			text: "Its conversations and messages stay, for reading. Triggers that name it answer with a conflict until they are changed.",
		}),
	}
}

// AgentView is an agent as the API shows it. Names stay; more may be added.
type AgentView struct {
	ID             agented.AgentID    `json:"id" example:"agt-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Name           string             `json:"name" doc:"Unique, ignoring case; addresses hold it"`
	Role           string             `json:"role" doc:"One line: what it is"`
	Goals          string             `json:"goals" doc:"What it works towards, and how: its system prompt"`
	Enabled        bool               `json:"enabled"`
	Backend        string             `json:"backend"`
	Account        agented.AccountID  `json:"account" doc:"Empty: any account of the backend"`
	Model          string             `json:"model" doc:"Empty: the CLI's own default"`
	Fallback       []agented.Choice   `json:"fallback" doc:"What is tried when nothing before it is ready"`
	Permission     agented.Permission `json:"permission" doc:"read, edit or full"`
	Args           []string           `json:"args" doc:"Further arguments for the CLI, such as the tools that it may use"`
	WorkingDir     string             `json:"working_dir" doc:"Empty: a directory of the conversation's own"`
	Workspace      *agented.Workspace `json:"workspace,omitempty" doc:"A git repository to work in"`
	Paths          []string           `json:"paths" doc:"Further directories that the agent may use"`
	TimeoutSeconds int                `json:"timeout_seconds" doc:"Of one turn; 0: no limit"`
	SilenceSeconds int                `json:"silence_timeout_seconds" doc:"0: no limit"`
	CeilingUSD     float64            `json:"ceiling_usd" doc:"Cost at which a running turn is paused and asks; 0: none"`
	Env            map[string]*string `json:"env" doc:"Variables for the process. Values are never shown: *** stands for one"`
	CreatedAt      time.Time          `json:"created_at"`
	UpdatedAt      time.Time          `json:"updated_at"`
}

func (s *Server) showAgent(ctx context.Context, a *agented.Agent) AgentView {
	v := AgentView{
		ID: a.ID, Name: a.Name, Role: a.Role, Goals: a.Goals, Enabled: a.Enabled, Backend: a.Spec.Backend,
		Account: a.Spec.Account, Model: a.Spec.Model, Fallback: list(a.Spec.Fallback), Permission: a.Spec.Permission,
		Args: list(a.Spec.Args), WorkingDir: a.Spec.WorkingDir, Workspace: a.Spec.Workspace, Paths: list(a.Spec.Paths),
		TimeoutSeconds: a.Spec.TimeoutSeconds, SilenceSeconds: a.Spec.SilenceSeconds, CeilingUSD: a.Spec.CeilingUSD,
		Env: map[string]*string{}, CreatedAt: shown(a.CreatedAt), UpdatedAt: shown(a.UpdatedAt),
	}
	for name, value := range a.Spec.Env {
		v.Env[name] = nil
		if value != nil {
			mask := kept
			v.Env[name] = &mask
		}
	}
	if principal(ctx).May(agented.RoleAdmin) {
		return v
	}
	v.Goals = s.mask(v.Goals)
	args := make([]string, len(v.Args))
	for i, a := range v.Args {
		args[i] = s.mask(a)
	}
	v.Args = args
	return v
}

// AgentFields is an agent in requests. A field that is left out has its default
// in a new agent and stays as it is in a change; null is the default.
type AgentFields struct {
	Name           optional[string]             `json:"name,omitzero" doc:"Letters, digits, -, _ and .; at most 64. Unique, ignoring case"`
	Role           optional[string]             `json:"role,omitzero" doc:"One line: what it is"`
	Goals          optional[string]             `json:"goals,omitzero" doc:"What it works towards, and how: its system prompt"`
	Enabled        optional[bool]               `json:"enabled,omitzero" doc:"Default true"`
	Backend        optional[string]             `json:"backend,omitzero" doc:"An agent CLI: claude, codex, gemini, opencode or anthropic"`
	Account        optional[agented.AccountID]  `json:"account,omitzero" doc:"Id or name of an account. Default: any of the backend"`
	Model          optional[string]             `json:"model,omitzero" doc:"Default: the CLI's own"`
	Fallback       optional[[]agented.Choice]   `json:"fallback,omitzero" doc:"What to try when nothing before it is ready"`
	Permission     optional[agented.Permission] `json:"permission,omitzero" doc:"read, edit (default) or full"`
	Args           optional[[]string]           `json:"args,omitzero" doc:"Further arguments, passed to the CLI as they are, for example the tools that it may use"`
	WorkingDir     optional[string]             `json:"working_dir,omitzero" doc:"Absolute path. Default: a directory of the conversation's own"`
	Workspace      optional[*agented.Workspace] `json:"workspace,omitzero" doc:"A git repository to work in"`
	Paths          optional[[]string]           `json:"paths,omitzero" doc:"Further directories, absolute"`
	TimeoutSeconds optional[int]                `json:"timeout_seconds,omitzero" doc:"Wall-clock limit of one turn; 0 is none. Default 3600"`
	SilenceSeconds optional[int]                `json:"silence_timeout_seconds,omitzero" doc:"Limit for printing nothing; 0 is none. Default 0"`
	CeilingUSD     optional[float64]            `json:"ceiling_usd,omitzero" doc:"Cost at which a running turn is paused and asks; 0 is none"`
	Env            optional[map[string]*string] `json:"env,omitzero" doc:"Variables for the process; replaces all earlier ones. In a change *** keeps the value that the name has"`
}

func (f *AgentFields) apply(a *agented.Agent) error {
	f.Name.into(&a.Name, "")
	f.Role.into(&a.Role, "")
	f.Goals.into(&a.Goals, "")
	f.Enabled.into(&a.Enabled, true)
	f.Account.into(&a.Spec.Account, "")
	f.Fallback.into(&a.Spec.Fallback, nil)
	f.Workspace.into(&a.Spec.Workspace, nil)
	f.CeilingUSD.into(&a.Spec.CeilingUSD, 0)
	spec := SpecFields{
		Backend: f.Backend, Model: f.Model, Permission: f.Permission, Args: f.Args, WorkingDir: f.WorkingDir, Paths: f.Paths,
		TimeoutSeconds: f.TimeoutSeconds, SilenceSeconds: f.SilenceSeconds, Env: f.Env,
	}
	if err := spec.apply(&a.Spec, 0); err != nil {
		return err
	}
	return agented.InvalidFields(a.Validate())
}

// AgentCreate is a new agent.
type AgentCreate struct{ AgentFields }

// AgentUpdate is a change of an agent (a JSON merge patch, but env is replaced
// as a whole).
type AgentUpdate struct{ AgentFields }

type agentListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
}

func (s *Server) listAgents(ctx context.Context, in *agentListInput) (*listOutput[AgentView], error) {
	items, next, err := s.o.DB.Agents(ctx, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, func(a *agented.Agent) AgentView { return s.showAgent(ctx, a) }), nil
}

type createdAgent struct {
	Location string `header:"Location" doc:"Path of the new agent"`
	Body     AgentView
}

func (s *Server) createAgent(ctx context.Context, in *createInput[AgentCreate]) (*createdAgent, error) {
	a := &agented.Agent{Enabled: true, Spec: newSpec(0), CreatedAt: s.now()}
	if err := in.Body.apply(a); err != nil {
		return nil, err
	}
	s.sealEnv(&a.Spec, nil)
	if err := s.o.DB.CreateAgent(ctx, a, principal(ctx).Name); err != nil {
		return nil, err
	}
	if err := s.agentsChanged(ctx); err != nil {
		return nil, err
	}
	return &createdAgent{Location: "/api/v1/agents/" + string(a.ID), Body: s.showAgent(ctx, a)}, nil
}

type agentPath struct {
	ID string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
}

func (s *Server) getAgent(ctx context.Context, in *agentPath) (*output[AgentView], error) {
	a, err := s.o.DB.Agent(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &output[AgentView]{s.showAgent(ctx, a)}, nil
}

type agentChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
	Body AgentUpdate
}

func (s *Server) updateAgent(ctx context.Context, in *agentChange) (*output[AgentView], error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	a, err := s.o.DB.Agent(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	before := *a
	if err := in.Body.apply(a); err != nil {
		return nil, err
	}
	s.sealEnv(&a.Spec, before.Spec.Env)
	if reflect.DeepEqual(&before, a) {
		return &output[AgentView]{s.showAgent(ctx, a)}, nil
	}
	if err := s.o.DB.UpdateAgent(ctx, a, principal(ctx).Name); err != nil {
		return nil, err
	}
	if err := s.agentsChanged(ctx); err != nil {
		return nil, err
	}
	return &output[AgentView]{s.showAgent(ctx, a)}, nil
}

func (s *Server) deleteAgent(ctx context.Context, in *agentPath) (*struct{}, error) {
	a, err := s.o.DB.Agent(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.o.DB.DeleteAgent(ctx, a.ID, principal(ctx).Name); err != nil {
		return nil, err
	}
	return nil, s.agentsChanged(ctx)
}

// agentsChanged makes what was stored known.
func (s *Server) agentsChanged(ctx context.Context) error {
	s.changes.tell(changedAgents)
	return s.o.Dispatch.ReloadAgents(ctx)
}

// nameAgent makes a spec name its agent by id. One that is not there is a
// mistake in the request.
func (s *Server) nameAgent(spec *agented.Spec) error {
	if spec.Agent == "" {
		return nil
	}
	id := s.o.Dispatch.AgentID(spec.Agent)
	if id == "" {
		return agented.InvalidFields([]agented.Field{{Path: "agent", Text: "names no agent: create it first, or check the name"}})
	}
	spec.Agent = string(id)
	return nil
}
