package api

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// budgetRoutes returns the routes of pauses, budgets and usage.
func (s *Server) budgetRoutes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	conflict := []int{http.StatusNotFound, http.StatusConflict}
	return []rest.Route{
		rest.Op("POST /api/v1/executions/{id}/pause", operator, s.pauseExecution, rest.About{
			ID: "pause-execution", Tag: "executions", Summary: "Pause an execution", Status: http.StatusOK, Errors: conflict,
			Text: "Stops all processes of the execution until it is continued or until its pause ends, when it is terminated. Paused time does not count toward its limits of time and silence. Its status stays running. Returns 409 if it is not running or already paused.",
		}),
		rest.Op("POST /api/v1/executions/{id}/continue", operator, s.continueExecution, rest.About{
			ID: "continue-execution", Tag: "executions", Summary: "Continue a paused execution", Status: http.StatusOK, Errors: conflict,
			Text: "If it asks about its cost ceiling, send a higher ceiling, or 0 for none. To end it instead, cancel it.",
		}),

		rest.Op("GET /api/v1/budgets", viewer, s.listBudgets, rest.About{
			ID: "list-budgets", Tag: "money", Summary: "List budgets", Text: "Lists budgets by name, with the spending in their current period.",
		}),
		rest.Op("POST /api/v1/budgets", admin, s.createBudget, rest.About{
			ID: "create-budget", Tag: "money", Summary: "Create a budget", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The smallest valid body is `{\"name\":\"all\",\"limit_usd\":100}`: it counts the cost of all executions in a month, and notifies when the limit is reached.",
		}),
		rest.Op("GET /api/v1/budgets/{id}", viewer, s.getBudget, rest.About{
			ID: "get-budget", Tag: "money", Summary: "Show a budget", Errors: []int{http.StatusNotFound}, Text: "Returns one budget with its spending.",
		}),
		rest.Op("PATCH /api/v1/budgets/{id}", admin, s.updateBudget, rest.About{
			ID: "update-budget", Tag: "money", Summary: "Update a budget", Errors: conflict,
			Text: "Omitted fields are unchanged. Executions that wait for the budget are checked again.",
		}),
		rest.Op("DELETE /api/v1/budgets/{id}", admin, s.deleteBudget, rest.About{
			ID: "delete-budget", Tag: "money", Summary: "Delete a budget", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Executions that wait for it resume. The recorded usage remains.",
		}),
		rest.Op("GET /api/v1/usage", viewer, s.getUsage, rest.About{
			ID: "get-usage", Tag: "money", Summary: "Report usage",
			Text: "Sums tokens and cost of the attempts that ended in a period, by day, trigger, account, model or backend. An unknown cost is null and counted in `unknown_cost`, never 0.",
		}),
	}
}

// PauseBody is the request to pause an execution.
type PauseBody struct {
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Reason, for display"`
	Seconds int    `json:"seconds,omitempty" minimum:"0" maximum:"2592000" doc:"Longest pause before the execution is ended. Default: AGENTED_PAUSE_LIMIT"`
}

type pauseInput struct {
	ID   string     `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Body *PauseBody `doc:"Optional"`
}

func (s *Server) pauseExecution(ctx context.Context, in *pauseInput) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	p := dispatch.Pausing{By: rest.Principal(ctx)}
	if in.Body != nil {
		p.Reason, p.For = in.Body.Reason, time.Duration(in.Body.Seconds)*time.Second
	}
	e, err := s.executions.Pause(ctx, id, p)
	if err != nil {
		return nil, err
	}
	detail := e.TriggerName
	if p.Reason != "" {
		detail += ": " + p.Reason
	}
	s.noteAction(ctx, "execution.pause", in.ID, detail)
	return rest.Reply(s.showExecution(e, false)), nil
}

// ContinueBody is the request to continue a paused execution.
type ContinueBody struct {
	CeilingUSD *float64 `json:"ceiling_usd,omitempty" doc:"New cost ceiling; 0 means none. Required if the execution asks about its ceiling"`
}

type continueInput struct {
	ID   string        `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Body *ContinueBody `doc:"Optional"`
}

func (s *Server) continueExecution(ctx context.Context, in *continueInput) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	c := dispatch.Continuing{By: rest.Principal(ctx)}
	if in.Body != nil {
		c.Ceiling = in.Body.CeilingUSD
	}
	e, err := s.executions.Continue(ctx, id, c)
	if err != nil {
		return nil, err
	}
	detail := e.TriggerName
	if c.Ceiling != nil {
		detail += ": ceiling " + agented.Dollars(*c.Ceiling)
	}
	s.noteAction(ctx, "execution.continue", in.ID, detail)
	return rest.Reply(s.showExecution(e, false)), nil
}

// PauseView is the pause of a running execution.
type PauseView struct {
	PausedAt time.Time        `json:"paused_at"`
	Until    time.Time        `json:"paused_until" doc:"When the execution is ended"`
	Reason   string           `json:"paused_reason"`
	By       string           `json:"paused_by" doc:"Empty: the server"`
	Question agented.Question `json:"question" enum:",ceiling,budget" doc:"Question for a person; empty: none. Continue the execution (ceiling: with a higher ceiling_usd), or cancel it"`
	SpentUSD *float64         `json:"spent_usd,omitempty" doc:"For a question: the cost so far"`
	LimitUSD *float64         `json:"limit_usd,omitempty" doc:"For a question: the ceiling or the budget's limit"`
}

func viewPause(p *agented.Pause) *PauseView {
	if p == nil {
		return nil
	}
	v := &PauseView{PausedAt: rest.Time(p.At), Until: rest.Time(p.Until), Reason: p.Reason, By: p.By, Question: p.Question}
	if p.Question != agented.QuestionNone {
		spent, limit := p.SpentUSD, p.LimitUSD
		v.SpentUSD, v.LimitUSD = &spent, &limit
	}
	return v
}

// CheckoutView is the checkout of an execution.
type CheckoutView struct {
	Repository string    `json:"repository"`
	Ref        string    `json:"ref" doc:"Requested ref; empty: the default branch"`
	Commit     string    `json:"commit"`
	At         time.Time `json:"checked_out_at"`
}

func viewCheckout(c *agented.Checkout) *CheckoutView {
	if c == nil {
		return nil
	}
	return &CheckoutView{Repository: c.Repository, Ref: c.Ref, Commit: c.Commit, At: rest.Time(c.At)}
}

// BudgetView is a budget in responses. Names are stable; fields may be added.
type BudgetView struct {
	ID           agented.BudgetID    `json:"id" example:"bud-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Name         string              `json:"name" doc:"Unique, ignoring case"`
	Enabled      bool                `json:"enabled"`
	Scope        agented.BudgetScope `json:"scope" enum:"all,trigger,account" doc:"What it counts"`
	Target       string              `json:"target" doc:"Id of the trigger or the account; empty for all"`
	Period       agented.Period      `json:"period" enum:"day,week,month" doc:"Calendar period in the server's time zone; a week begins on Monday"`
	LimitUSD     float64             `json:"limit_usd"`
	Hard         bool                `json:"hard" doc:"New executions wait when it is used up"`
	Pause        bool                `json:"pause" doc:"When it is used up, running executions are paused with a question"`
	WarnPercent  int                 `json:"warn_percent" doc:"Percent of the limit at which the first notification is sent; 0: only at the limit"`
	SpentUSD     float64             `json:"spent_usd" doc:"Known cost in the current period"`
	UnknownCost  int64               `json:"unknown_cost" doc:"Attempts in the period whose cost is unknown"`
	State        string              `json:"state" enum:"ok,near,reached"`
	PeriodBegins time.Time           `json:"period_begins"`
	PeriodEnds   time.Time           `json:"period_ends"`
	CreatedAt    time.Time           `json:"created_at"`
	UpdatedAt    time.Time           `json:"updated_at"`
}

func viewBudget(b *agented.Budget) BudgetView {
	v := BudgetView{
		ID: b.ID, Name: b.Name, Enabled: b.Enabled, Scope: b.Scope, Target: b.Target, Period: b.Period, LimitUSD: b.Limit, Hard: b.Hard,
		Pause: b.Pause, WarnPercent: b.Warn, SpentUSD: b.Spent, UnknownCost: b.Unknown, State: "ok",
		PeriodBegins: rest.Time(b.Since), PeriodEnds: rest.Time(b.Until), CreatedAt: rest.Time(b.CreatedAt), UpdatedAt: rest.Time(b.UpdatedAt),
	}
	switch {
	case b.Reached():
		v.State = "reached"
	case b.WarnReached():
		v.State = "near"
	}
	return v
}

// BudgetFields are the fields of a budget in requests. An omitted field has its
// default in a new budget and is unchanged in an update; null is the default.
type BudgetFields struct {
	Name        rest.Optional[string]              `json:"name,omitzero" doc:"Unique, ignoring case"`
	Enabled     rest.Optional[bool]                `json:"enabled,omitzero" doc:"Default true"`
	Scope       rest.Optional[agented.BudgetScope] `json:"scope,omitzero" doc:"all (default), trigger or account"`
	Target      rest.Optional[string]              `json:"target,omitzero" doc:"Id of the trigger or the account"`
	Period      rest.Optional[agented.Period]      `json:"period,omitzero" doc:"day, week or month (default)"`
	LimitUSD    rest.Optional[float64]             `json:"limit_usd,omitzero" doc:"Above 0"`
	Hard        rest.Optional[bool]                `json:"hard,omitzero" doc:"New executions wait when it is used up. Default false: only a notification is sent"`
	Pause       rest.Optional[bool]                `json:"pause,omitzero" doc:"For hard budgets: pause running executions with a question. Default false"`
	WarnPercent rest.Optional[int]                 `json:"warn_percent,omitzero" doc:"Percent of the limit at which the first notification is sent. Default 80; 0: only at the limit"`
}

func (f *BudgetFields) apply(b *agented.Budget) error {
	before := b.Name
	f.Name.Into(&b.Name, "")
	f.Enabled.Into(&b.Enabled, true)
	f.Scope.Into(&b.Scope, agented.BudgetAll)
	f.Target.Into(&b.Target, "")
	f.Period.Into(&b.Period, agented.PeriodMonth)
	f.LimitUSD.Into(&b.Limit, 0)
	f.Hard.Into(&b.Hard, false)
	f.Pause.Into(&b.Pause, false)
	f.WarnPercent.Into(&b.Warn, 80)
	return agented.InvalidFields(checkName(b.Validate(), before, b.Name))
}

// BudgetCreate is the request to create a budget.
type BudgetCreate struct{ BudgetFields }

// BudgetUpdate is the request to update a budget (a JSON merge patch).
type BudgetUpdate struct{ BudgetFields }

func (s *Server) listBudgets(ctx context.Context, _ *struct{}) (*rest.ListOutput[BudgetView], error) {
	items, err := s.o.DB.Budgets(ctx, s.now())
	if err != nil {
		return nil, err
	}
	return rest.List(items, "", viewBudget), nil
}

type createdBudget struct {
	Location string `header:"Location" doc:"Path of the new budget"`
	Body     BudgetView
}

func (s *Server) createBudget(ctx context.Context, in *rest.Input[BudgetCreate]) (*createdBudget, error) {
	b := &agented.Budget{Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodMonth, Warn: 80}
	if err := in.Body.apply(b); err != nil {
		return nil, err
	}
	if err := s.o.DB.SaveBudget(ctx, b, rest.Principal(ctx).Name, s.now()); err != nil {
		return nil, err
	}
	if err := s.budgetsChanged(ctx); err != nil {
		return nil, err
	}
	return &createdBudget{Location: "/api/v1/budgets/" + string(b.ID), Body: viewBudget(b)}, nil
}

type budgetPath struct {
	ID string `path:"id" maxLength:"100" doc:"The budget's id, bud-…"`
}

func (s *Server) getBudget(ctx context.Context, in *budgetPath) (*rest.Output[BudgetView], error) {
	b, err := s.o.DB.Budget(ctx, agented.BudgetID(in.ID), s.now())
	if err != nil {
		return nil, err
	}
	return rest.Reply(viewBudget(b)), nil
}

type budgetChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The budget's id, bud-…"`
	Body BudgetUpdate
}

func (s *Server) updateBudget(ctx context.Context, in *budgetChange) (*rest.Output[BudgetView], error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	b, err := s.o.DB.Budget(ctx, agented.BudgetID(in.ID), s.now())
	if err != nil {
		return nil, err
	}
	if err := in.Body.apply(b); err != nil {
		return nil, err
	}
	if err := s.o.DB.SaveBudget(ctx, b, rest.Principal(ctx).Name, s.now()); err != nil {
		return nil, err
	}
	if err := s.budgetsChanged(ctx); err != nil {
		return nil, err
	}
	return rest.Reply(viewBudget(b)), nil
}

func (s *Server) deleteBudget(ctx context.Context, in *budgetPath) (*struct{}, error) {
	if err := s.o.DB.DeleteBudget(ctx, agented.BudgetID(in.ID), rest.Principal(ctx).Name, s.now()); err != nil {
		return nil, err
	}
	return nil, s.budgetsChanged(ctx)
}

// budgetsChanged notifies the parts of the server that depend on budgets.
func (s *Server) budgetsChanged(ctx context.Context) error {
	s.streams.Changes.Notify(sse.ChangedBudgets)
	return s.node.BudgetsChanged(ctx)
}

type usageInput struct {
	By   string    `query:"by" enum:"day,trigger,account,model,backend" default:"day" doc:"What to group by"`
	From time.Time `query:"from" doc:"Attempts that ended at this time or later. Default: 30 days ago"`
	To   time.Time `query:"to" doc:"Attempts that ended before this time. Default: now"`
}

// UsageView is the usage of one group.
type UsageView struct {
	Key              string   `json:"key" doc:"A day as 2006-01-02, an id or a name; empty: none or unknown"`
	Name             string   `json:"name" doc:"Display name, if there is one"`
	Attempts         int64    `json:"attempts"`
	UnknownCost      int64    `json:"unknown_cost" doc:"Attempts whose cost is unknown"`
	EstimatedCost    int64    `json:"estimated_cost" doc:"Attempts whose cost was estimated from the price list"`
	InputTokens      *int64   `json:"input_tokens" nullable:"true"`
	OutputTokens     *int64   `json:"output_tokens" nullable:"true"`
	CacheReadTokens  *int64   `json:"cache_read_tokens" nullable:"true"`
	CacheWriteTokens *int64   `json:"cache_write_tokens" nullable:"true"`
	CostUSD          *float64 `json:"cost_usd" nullable:"true" doc:"Known cost; null if it is unknown for every attempt"`
}

// UsageReport is the usage of all groups.
type UsageReport struct {
	By     string      `json:"by"`
	From   time.Time   `json:"from"`
	To     time.Time   `json:"to"`
	Items  []UsageView `json:"items" doc:"By day: in order of days; otherwise the most expensive first"`
	Prices PricesView  `json:"prices"`
}

// PricesView is the price list that estimates are based on.
type PricesView struct {
	Date   string `json:"date"`
	Source string `json:"source"`
}

func (s *Server) getUsage(ctx context.Context, in *usageInput) (*rest.Output[UsageReport], error) {
	to := in.To
	if to.IsZero() {
		to = s.now()
	}
	from := in.From
	if from.IsZero() {
		from = to.AddDate(0, 0, -30)
	}
	if !from.Before(to) {
		return nil, rest.InQuery(agented.InvalidFields([]agented.Field{{Path: "from", Text: "must be before to"}}))
	}
	sums, err := s.o.DB.Usage(ctx, store.UsageBy(in.By), from, to)
	if err != nil {
		return nil, rest.InQuery(err)
	}
	out := UsageReport{By: in.By, From: rest.Time(from), To: rest.Time(to), Items: make([]UsageView, len(sums))}
	if p := s.o.Prices; p != nil {
		out.Prices = PricesView{p.Date, p.Source}
	}
	for i, u := range sums {
		out.Items[i] = UsageView{
			Key: u.Key, Name: u.Name, Attempts: u.Attempts, UnknownCost: u.Unknown, EstimatedCost: u.Estimated,
			InputTokens: u.Usage.InputTokens, OutputTokens: u.Usage.OutputTokens,
			CacheReadTokens: u.Usage.CacheReadTokens, CacheWriteTokens: u.Usage.CacheWriteTokens, CostUSD: u.Usage.CostUSD,
		}
	}
	return rest.Reply(out), nil
}
