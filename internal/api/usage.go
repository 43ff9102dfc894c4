package api

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// usageReports handles the requests about usage and cost.
type usageReports struct {
	db     *store.DB
	prices *agented.Prices // nil: no estimates
	now    func() time.Time
}

// routes returns the route of usage.
func (h *usageReports) routes() []rest.Route {
	return []rest.Route{
		rest.Op("GET /api/v1/usage", agented.RoleViewer, h.get, rest.About{
			ID: "get-usage", Tag: "money", Summary: "Report usage",
			Text: "Sums tokens and cost of the attempts that ended in a period, by day, trigger, account, model or backend. An unknown cost is null and counted in `unknown_cost`, never 0.",
		}),
	}
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

func (h *usageReports) get(ctx context.Context, in *usageInput) (*rest.Output[UsageReport], error) {
	to := in.To
	if to.IsZero() {
		to = h.now()
	}
	from := in.From
	if from.IsZero() {
		from = to.AddDate(0, 0, -30)
	}
	if !from.Before(to) {
		return nil, rest.InQuery(agented.InvalidFields([]agented.Field{{Path: "from", Text: "must be before to"}}))
	}
	sums, err := h.db.Usage(ctx, store.UsageBy(in.By), from, to)
	if err != nil {
		return nil, rest.InQuery(err)
	}
	out := UsageReport{By: in.By, From: rest.Time(from), To: rest.Time(to), Items: make([]UsageView, len(sums))}
	if p := h.prices; p != nil {
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
