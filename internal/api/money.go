package api

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// moneyRoutes are the ways to pauses, budgets and usage.
func (s *Server) moneyRoutes() []route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	conflict := []int{http.StatusNotFound, http.StatusConflict}
	return []route{
		op("POST /api/v1/executions/{id}/pause", operator, s.pauseExecution, about{
			id: "pause-execution", tag: "executions", summary: "Pause an execution", status: http.StatusOK, errors: conflict,
			text: "All that it has started stands still, and its limits of time and silence with it, until it is continued, or until a time at which it is ended. Its status stays running. One that does not run, or is paused, is a conflict.",
		}),
		op("POST /api/v1/executions/{id}/continue", operator, s.continueExecution, about{
			id: "continue-execution", tag: "executions", summary: "Continue a paused execution", status: http.StatusOK, errors: conflict,
			text: "One that asks about the ceiling of its cost needs a higher one, or 0 for none. To end it instead, cancel it.",
		}),

		op("GET /api/v1/budgets", viewer, s.listBudgets, about{
			id: "list-budgets", tag: "money", summary: "List budgets", text: "By name, with what is spent of each in its current period.",
		}),
		op("POST /api/v1/budgets", admin, s.createBudget, about{
			id: "create-budget", tag: "money", summary: "Create a budget", status: http.StatusCreated, errors: []int{http.StatusConflict},
			text: "The least that works is `{\"name\":\"all\",\"limit_usd\":100}`: what all executions cost in a month, told when it is reached.",
		}),
		op("GET /api/v1/budgets/{id}", viewer, s.getBudget, about{
			id: "get-budget", tag: "money", summary: "Show a budget", errors: []int{http.StatusNotFound}, text: "With what is spent of it.",
		}),
		op("PATCH /api/v1/budgets/{id}", admin, s.updateBudget, about{
			id: "update-budget", tag: "money", summary: "Change a budget", errors: conflict,
			text: "What is left out stays. What waits for the budget is looked at again.",
		}),
		op("DELETE /api/v1/budgets/{id}", admin, s.deleteBudget, about{
			id: "delete-budget", tag: "money", summary: "Delete a budget", status: http.StatusNoContent, errors: []int{http.StatusNotFound},
			text: "What waits for it goes on. What was spent stays in the usage.",
		}),
		op("GET /api/v1/usage", viewer, s.getUsage, about{
			id: "get-usage", tag: "money", summary: "Add up what was used",
			text: "Tokens and cost of the attempts that ended in a time, by day, trigger, account, model or backend. A cost that nobody knows is null and counted in `unknown_cost`, never 0.",
		}),
	}
}

// PauseBody asks for a pause.
type PauseBody struct {
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Why, for people"`
	Seconds int    `json:"seconds,omitempty" minimum:"0" maximum:"2592000" doc:"How long it may stand still before it is ended. Default: AGENTED_PAUSE_LIMIT"`
}

type pauseInput struct {
	ID   string     `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Body *PauseBody `doc:"May be left out"`
}

func (s *Server) pauseExecution(ctx context.Context, in *pauseInput) (*output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	p := dispatch.Pausing{By: principal(ctx)}
	if in.Body != nil {
		p.Reason, p.For = in.Body.Reason, time.Duration(in.Body.Seconds)*time.Second
	}
	e, err := s.o.Dispatch.Pause(ctx, id, p)
	if err != nil {
		return nil, err
	}
	return &output[ExecutionView]{s.showExecution(e, false)}, nil
}

// ContinueBody asks for a paused execution to go on.
type ContinueBody struct {
	CeilingUSD *float64 `json:"ceiling_usd,omitempty" doc:"A new ceiling of its cost; 0 is none. Needed when it asks about it"`
}

type continueInput struct {
	ID   string        `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Body *ContinueBody `doc:"May be left out"`
}

func (s *Server) continueExecution(ctx context.Context, in *continueInput) (*output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	c := dispatch.Continuing{By: principal(ctx)}
	if in.Body != nil {
		c.Ceiling = in.Body.CeilingUSD
	}
	e, err := s.o.Dispatch.Continue(ctx, id, c)
	if err != nil {
		return nil, err
	}
	return &output[ExecutionView]{s.showExecution(e, false)}, nil
}

// PauseView is how a running execution stands still.
type PauseView struct {
	PausedAt time.Time        `json:"paused_at"`
	Until    time.Time        `json:"paused_until" doc:"Then it is ended"`
	Reason   string           `json:"paused_reason"`
	By       string           `json:"paused_by" doc:"Empty: the server"`
	Question agented.Question `json:"question" enum:",ceiling,budget" doc:"What it asks; empty: nothing. Continue it (ceiling: with a higher ceiling_usd), or cancel it"`
	SpentUSD *float64         `json:"spent_usd,omitempty" doc:"Of a question: what was spent by then"`
	LimitUSD *float64         `json:"limit_usd,omitempty" doc:"Of a question: the ceiling or the budget's limit"`
}

func viewPause(p *agented.Pause) *PauseView {
	if p == nil {
		return nil
	}
	v := &PauseView{PausedAt: shown(p.At), Until: shown(p.Until), Reason: p.Reason, By: p.By, Question: p.Question}
	if p.Question != agented.QuestionNone {
		spent, limit := p.SpentUSD, p.LimitUSD
		v.SpentUSD, v.LimitUSD = &spent, &limit
	}
	return v
}

// CheckoutView is what an execution works in.
type CheckoutView struct {
	Repository string    `json:"repository"`
	Ref        string    `json:"ref" doc:"As asked for; empty: the default branch"`
	Commit     string    `json:"commit"`
	At         time.Time `json:"checked_out_at"`
}

func viewCheckout(c *agented.Checkout) *CheckoutView {
	if c == nil {
		return nil
	}
	return &CheckoutView{Repository: c.Repository, Ref: c.Ref, Commit: c.Commit, At: shown(c.At)}
}

// BudgetView is a budget as the API shows it. Names stay; more may be added.
type BudgetView struct {
	ID           agented.BudgetID    `json:"id" example:"bud-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Name         string              `json:"name" doc:"Unique, ignoring case"`
	Enabled      bool                `json:"enabled"`
	Scope        agented.BudgetScope `json:"scope" enum:"all,trigger,account" doc:"What it counts"`
	Target       string              `json:"target" doc:"Id of the trigger or the account; empty for all"`
	Period       agented.Period      `json:"period" enum:"day,week,month" doc:"On the clock of the server's zone; a week begins on Monday"`
	LimitUSD     float64             `json:"limit_usd"`
	Hard         bool                `json:"hard" doc:"New executions wait when it is used up"`
	Pause        bool                `json:"pause" doc:"What runs is paused then, and asks"`
	WarnPercent  int                 `json:"warn_percent" doc:"Percent of the limit at which it is told first; 0: when it is reached"`
	SpentUSD     float64             `json:"spent_usd" doc:"In the current period, as far as it is known"`
	UnknownCost  int64               `json:"unknown_cost" doc:"Attempts in it whose cost nobody knows"`
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
		PeriodBegins: shown(b.Since), PeriodEnds: shown(b.Until), CreatedAt: shown(b.CreatedAt), UpdatedAt: shown(b.UpdatedAt),
	}
	switch {
	case b.Reached():
		v.State = "reached"
	case b.Near():
		v.State = "near"
	}
	return v
}

// BudgetFields is a budget in requests. A field that is left out has its default
// in a new budget and stays as it is in a change; null is the default.
type BudgetFields struct {
	Name        optional[string]              `json:"name,omitzero" doc:"Unique, ignoring case"`
	Enabled     optional[bool]                `json:"enabled,omitzero" doc:"Default true"`
	Scope       optional[agented.BudgetScope] `json:"scope,omitzero" doc:"all (default), trigger or account"`
	Target      optional[string]              `json:"target,omitzero" doc:"Id of the trigger or the account"`
	Period      optional[agented.Period]      `json:"period,omitzero" doc:"day, week or month (default)"`
	LimitUSD    optional[float64]             `json:"limit_usd,omitzero" doc:"Above 0"`
	Hard        optional[bool]                `json:"hard,omitzero" doc:"New executions wait when it is used up. Default false: people are told"`
	Pause       optional[bool]                `json:"pause,omitzero" doc:"Of a hard one: what runs is paused and asks. Default false"`
	WarnPercent optional[int]                 `json:"warn_percent,omitzero" doc:"Percent of the limit at which it is told first. Default 80; 0: when it is reached"`
}

func (f *BudgetFields) apply(b *agented.Budget) error {
	f.Name.into(&b.Name, "")
	f.Enabled.into(&b.Enabled, true)
	f.Scope.into(&b.Scope, agented.BudgetAll)
	f.Target.into(&b.Target, "")
	f.Period.into(&b.Period, agented.PeriodMonth)
	f.LimitUSD.into(&b.Limit, 0)
	f.Hard.into(&b.Hard, false)
	f.Pause.into(&b.Pause, false)
	f.WarnPercent.into(&b.Warn, 80)
	return agented.InvalidFields(b.Validate())
}

// BudgetCreate is a new budget.
type BudgetCreate struct{ BudgetFields }

// BudgetUpdate is a change of a budget (a JSON merge patch).
type BudgetUpdate struct{ BudgetFields }

func (s *Server) listBudgets(ctx context.Context, _ *struct{}) (*listOutput[BudgetView], error) {
	items, err := s.o.DB.Budgets(ctx, s.now())
	if err != nil {
		return nil, err
	}
	return page(items, "", viewBudget), nil
}

type createdBudget struct {
	Location string `header:"Location" doc:"Path of the new budget"`
	Body     BudgetView
}

func (s *Server) createBudget(ctx context.Context, in *createInput[BudgetCreate]) (*createdBudget, error) {
	b := &agented.Budget{Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodMonth, Warn: 80}
	if err := in.Body.apply(b); err != nil {
		return nil, err
	}
	if err := s.o.DB.SaveBudget(ctx, b, principal(ctx).Name, s.now()); err != nil {
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

func (s *Server) getBudget(ctx context.Context, in *budgetPath) (*output[BudgetView], error) {
	b, err := s.o.DB.Budget(ctx, agented.BudgetID(in.ID), s.now())
	if err != nil {
		return nil, err
	}
	return &output[BudgetView]{viewBudget(b)}, nil
}

type budgetChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The budget's id, bud-…"`
	Body BudgetUpdate
}

func (s *Server) updateBudget(ctx context.Context, in *budgetChange) (*output[BudgetView], error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	b, err := s.o.DB.Budget(ctx, agented.BudgetID(in.ID), s.now())
	if err != nil {
		return nil, err
	}
	if err := in.Body.apply(b); err != nil {
		return nil, err
	}
	if err := s.o.DB.SaveBudget(ctx, b, principal(ctx).Name, s.now()); err != nil {
		return nil, err
	}
	if err := s.budgetsChanged(ctx); err != nil {
		return nil, err
	}
	return &output[BudgetView]{viewBudget(b)}, nil
}

func (s *Server) deleteBudget(ctx context.Context, in *budgetPath) (*struct{}, error) {
	if err := s.o.DB.DeleteBudget(ctx, agented.BudgetID(in.ID), principal(ctx).Name, s.now()); err != nil {
		return nil, err
	}
	return nil, s.budgetsChanged(ctx)
}

// budgetsChanged makes what was stored known.
func (s *Server) budgetsChanged(ctx context.Context) error {
	s.changes.tell(changedBudgets)
	return s.o.Dispatch.BudgetsChanged(ctx)
}

type usageInput struct {
	By   string    `query:"by" enum:"day,trigger,account,model,backend" default:"day" doc:"What to add up by"`
	From time.Time `query:"from" doc:"Attempts that ended at this time or later. Default: 30 days ago"`
	To   time.Time `query:"to" doc:"And before this time. Default: now"`
}

// UsageView is what was used, by something.
type UsageView struct {
	Key              string   `json:"key" doc:"A day as 2006-01-02, or an id or a name; empty: none, or not known"`
	Name             string   `json:"name" doc:"For people, where there is one"`
	Attempts         int64    `json:"attempts"`
	UnknownCost      int64    `json:"unknown_cost" doc:"Attempts whose cost nobody knows"`
	EstimatedCost    int64    `json:"estimated_cost" doc:"Attempts whose cost was worked out from the list of prices"`
	InputTokens      *int64   `json:"input_tokens" nullable:"true"`
	OutputTokens     *int64   `json:"output_tokens" nullable:"true"`
	CacheReadTokens  *int64   `json:"cache_read_tokens" nullable:"true"`
	CacheWriteTokens *int64   `json:"cache_write_tokens" nullable:"true"`
	CostUSD          *float64 `json:"cost_usd" nullable:"true" doc:"As far as it is known; null when it is not known of any"`
}

// UsageReport is the answer about usage.
type UsageReport struct {
	By     string      `json:"by"`
	From   time.Time   `json:"from"`
	To     time.Time   `json:"to"`
	Items  []UsageView `json:"items" doc:"By day: each day, the first in front; else the dearest in front"`
	Prices PricesView  `json:"prices"`
}

// PricesView says which list of prices estimates come from.
type PricesView struct {
	Date   string `json:"date"`
	Source string `json:"source"`
}

func (s *Server) getUsage(ctx context.Context, in *usageInput) (*output[UsageReport], error) {
	to := in.To
	if to.IsZero() {
		to = s.now()
	}
	from := in.From
	if from.IsZero() {
		from = to.AddDate(0, 0, -30)
	}
	if !from.Before(to) {
		return nil, inQuery(agented.InvalidFields([]agented.Field{{Path: "from", Text: "must be before to"}}))
	}
	sums, err := s.o.DB.Usage(ctx, store.UsageBy(in.By), from, to)
	if err != nil {
		return nil, inQuery(err)
	}
	out := UsageReport{By: in.By, From: shown(from), To: shown(to), Items: make([]UsageView, len(sums))}
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
	return &output[UsageReport]{out}, nil
}
