package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/store"
)

// budgets handles the requests about budgets.
type budgets struct {
	db      *store.DB
	guard   BudgetGuard
	queue   Queue
	changes *sse.Changes
	now     func() time.Time

	changing sync.Mutex // held while a budget is read, changed and written
}

// BudgetGuard compares running executions with the budgets. Reload is called after each change of
// them.
type BudgetGuard interface {
	Reload(ctx context.Context) error
}

// routes returns the routes of budgets.
func (h *budgets) routes() []rest.Route {
	const viewer, admin = agented.RoleViewer, agented.RoleAdmin
	conflict := []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed}
	return []rest.Route{
		rest.Op("GET /api/v1/budgets", viewer, h.list, rest.About{
			ID: "list-budgets", Tag: "money", Summary: "List budgets", Text: "Lists budgets by name, with the spending in their current period.",
		}),
		rest.Op("POST /api/v1/budgets", admin, h.create, rest.About{
			ID: "create-budget", Tag: "money", Summary: "Create a budget", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The smallest valid body is `{\"name\":\"all\",\"limit_usd\":100}`: it counts the cost of all executions in a month, and notifies when the limit is reached.",
		}),
		rest.Op("GET /api/v1/budgets/{id}", viewer, h.get, rest.About{
			ID: "get-budget", Tag: "money", Summary: "Show a budget", Errors: []int{http.StatusNotFound}, Text: "Returns one budget with its spending.",
		}),
		rest.Op("PATCH /api/v1/budgets/{id}", admin, h.update, rest.About{
			ID: "update-budget", Tag: "money", Summary: "Update a budget", Errors: conflict,
			Text: "Omitted fields are unchanged. Executions that wait for the budget are checked again.",
		}),
		rest.Op("DELETE /api/v1/budgets/{id}", admin, h.remove, rest.About{
			ID: "delete-budget", Tag: "money", Summary: "Delete a budget", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Executions that wait for it resume. The recorded usage remains.",
		}),
	}
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
	ETag         string              `json:"etag" doc:"Version of the object, for If-Match in an update"`
}

func viewBudget(b *agented.Budget) BudgetView {
	v := BudgetView{
		ID: b.ID, Name: b.Name, Enabled: b.Enabled, Scope: b.Scope, Target: b.Target, Period: b.Period, LimitUSD: b.Limit, Hard: b.Hard,
		Pause: b.Pause, WarnPercent: b.Warn, SpentUSD: b.Spent, UnknownCost: b.Unknown, State: "ok",
		PeriodBegins: rest.Time(b.Since), PeriodEnds: rest.Time(b.Until), CreatedAt: rest.Time(b.CreatedAt), UpdatedAt: rest.Time(b.UpdatedAt), ETag: budgetETag(b),
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

func (h *budgets) list(ctx context.Context, _ *struct{}) (*rest.ListOutput[BudgetView], error) {
	items, err := h.db.Budgets(ctx, h.now())
	if err != nil {
		return nil, err
	}
	return rest.List(items, "", viewBudget), nil
}

type createdBudget struct {
	Location string `header:"Location" doc:"Path of the new budget"`
	Body     BudgetView
}

func (h *budgets) create(ctx context.Context, in *rest.Input[BudgetCreate]) (*createdBudget, error) {
	b := &agented.Budget{Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodMonth, Warn: 80}
	if err := in.Body.apply(b); err != nil {
		return nil, err
	}
	if err := h.db.SaveBudget(ctx, b, rest.Principal(ctx).Name, h.now()); err != nil {
		return nil, err
	}
	if err := h.changed(ctx); err != nil {
		return nil, err
	}
	return &createdBudget{Location: "/api/v1/budgets/" + string(b.ID), Body: viewBudget(b)}, nil
}

type budgetPath struct {
	ID string `path:"id" maxLength:"100" doc:"The budget's id, bud-…"`
}

func (h *budgets) get(ctx context.Context, in *budgetPath) (*rest.Tagged[BudgetView], error) {
	b, err := h.db.Budget(ctx, agented.BudgetID(in.ID), h.now())
	if err != nil {
		return nil, err
	}
	return rest.Versioned(viewBudget(b), budgetETag(b)), nil
}

type budgetChange struct {
	ID string `path:"id" maxLength:"100" doc:"The budget's id, bud-…"`
	rest.IfMatch
	Body BudgetUpdate
}

func (h *budgets) update(ctx context.Context, in *budgetChange) (*rest.Tagged[BudgetView], error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	b, err := h.db.Budget(ctx, agented.BudgetID(in.ID), h.now())
	if err != nil {
		return nil, err
	}
	if err := in.Check("budget", budgetETag(b), func() any { return viewBudget(b) }); err != nil {
		return nil, err
	}
	if err := in.Body.apply(b); err != nil {
		return nil, err
	}
	if err := h.db.SaveBudget(ctx, b, rest.Principal(ctx).Name, h.now()); err != nil {
		return nil, err
	}
	if err := h.changed(ctx); err != nil {
		return nil, err
	}
	return rest.Versioned(viewBudget(b), budgetETag(b)), nil
}

func (h *budgets) remove(ctx context.Context, in *budgetPath) (*struct{}, error) {
	if err := h.db.DeleteBudget(ctx, agented.BudgetID(in.ID), rest.Principal(ctx).Name, h.now()); err != nil {
		return nil, err
	}
	return nil, h.changed(ctx)
}

// changed notifies the parts of the server that depend on budgets.
func (h *budgets) changed(ctx context.Context) error {
	h.changes.Notify(sse.ChangedBudgets)
	h.queue.Wake() // executions that wait for a budget
	return h.guard.Reload(ctx)
}
