// Package attention implements the API of what waits for a person: paused executions,
// accounts that need a login, triggers that cannot fire or have not succeeded in time, budgets, and the server's notices.
package attention

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// Attention serves what waits for a person.
type Attention struct {
	DB   *store.DB
	Mask func(string) string // masks secrets
	Now  func() time.Time
	// Notices returns conditions of the server that need attention.
	Notices func() []string
	// Unverified reports whether any trigger can have hints.
	Unverified func() bool
	// Hints returns the problems that keep a trigger from firing, with their fixes, for admins.
	Hints func(*agented.Trigger) []Hint
}

// Hint is a problem that keeps a trigger from firing.
type Hint struct{ Text, Fix string }

// Kind is what an item is about.
type Kind string

// The kinds of items, in the order of the list.
const (
	Paused  Kind = "paused"  // a paused execution
	Account Kind = "account" // an account that only a person can make work
	Trigger Kind = "trigger" // a trigger that cannot fire, or has not succeeded in time
	Budget  Kind = "budget"  // a budget that is used up, or nearly
	Server  Kind = "server"  // a condition of the server
)

// Need is one thing that waits for a person. Names are stable; fields may be added.
type Need struct {
	Kind     Kind             `json:"kind" enum:"paused,account,trigger,budget,server"`
	ID       string           `json:"id" doc:"Id of the execution, account, trigger or budget; empty for the server"`
	Name     string           `json:"name" doc:"Its name"`
	Text     string           `json:"text" doc:"What is wrong, as a sentence"`
	Fix      string           `json:"fix,omitempty" doc:"The fix, with the command; only for admins"`
	Urgent   bool             `json:"urgent" doc:"Work waits for it"`
	Waiting  int              `json:"waiting" doc:"Executions that wait for it, of the oldest 1000 that are pending"`
	Question agented.Question `json:"question" enum:",ceiling,budget" doc:"For a paused execution: its question"`
	SpentUSD *float64         `json:"spent_usd,omitempty" doc:"For a question or a budget: the cost so far"`
	LimitUSD *float64         `json:"limit_usd,omitempty" doc:"For a question or a budget: the ceiling or limit"`
	Since    *time.Time       `json:"since,omitempty" doc:"When it began, if known"`
	Until    *time.Time       `json:"until,omitempty" doc:"For a paused execution: when it is cancelled without an answer. For a budget: the end of its period"`
}

// NeedList is what waits for a person.
type NeedList struct {
	Items  []Need `json:"items" doc:"Most urgent kind first"`
	Urgent int    `json:"urgent" doc:"Number of urgent items"`
}

const (
	maxPending = 1000
	maxRunning = 1000
	maxItems   = 100 // of triggers
)

// Routes returns the route of what waits for a person.
func (h *Attention) Routes() []rest.Route {
	return []rest.Route{
		rest.Op("GET /api/v1/attention", agented.RoleViewer, h.list, rest.About{
			ID: "list-attention", Tag: "server", Summary: "List what waits for a person",
			Text: "Lists paused executions, accounts that need a login or are out of credit, triggers whose webhooks cannot be verified or that have not succeeded within `expect_every`, budgets that are used up or nearly used up, and conditions of the server. Each item names the object to act on.",
		}),
	}
}

func (h *Attention) list(ctx context.Context, _ *struct{}) (*rest.Output[NeedList], error) {
	out := NeedList{Items: []Need{}}
	for _, add := range []func(context.Context) ([]Need, error){h.paused, h.accounts, h.triggers, h.overdue, h.budgets, h.server} {
		items, err := add(ctx)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, items...)
	}
	for _, i := range out.Items {
		if i.Urgent {
			out.Urgent++
		}
	}
	return rest.Reply(out), nil
}

func (h *Attention) paused(ctx context.Context) ([]Need, error) {
	running, err := h.DB.Running(ctx, maxRunning)
	if err != nil {
		return nil, err
	}
	var out []Need
	for _, e := range running {
		p := e.Pause
		if p == nil || e.CancelAsked {
			continue
		}
		i := Need{
			Kind: Paused, ID: string(e.ID), Name: e.TriggerName, Urgent: true, Question: p.Question,
			Since: rest.OptionalTime(p.At), Until: rest.OptionalTime(p.Until),
		}
		switch p.Question {
		case agented.QuestionCeiling:
			i.Text = fmt.Sprintf("Paused at its cost ceiling: %s of %s is spent.", agented.Dollars(p.SpentUSD), agented.Dollars(p.LimitUSD))
		case agented.QuestionBudget:
			i.Text = fmt.Sprintf("Paused by a budget: %s of %s is spent.", agented.Dollars(p.SpentUSD), agented.Dollars(p.LimitUSD))
		default:
			i.Text = "Paused."
			if p.By != "" {
				i.Text = "Paused by " + p.By + "."
			}
			if p.Reason != "" {
				i.Text = strings.TrimSuffix(i.Text, ".") + ": " + sentence(h.Mask(p.Reason))
			}
		}
		if p.Question != agented.QuestionNone {
			i.SpentUSD, i.LimitUSD = &p.SpentUSD, &p.LimitUSD
		}
		out = append(out, i)
	}
	// A question before a pause that a person made, then the one that ends first.
	slices.SortStableFunc(out, func(a, b Need) int {
		if (a.Question == "") != (b.Question == "") {
			if a.Question == "" {
				return 1
			}
			return -1
		}
		return a.Until.Compare(*b.Until)
	})
	return out, nil
}

// sentence returns a text with a full stop at its end.
func sentence(text string) string {
	if text == "" || strings.HasSuffix(text, "…") || strings.ContainsAny(text[len(text)-1:], ".!?") {
		return text
	}
	return text + "."
}

func (h *Attention) accounts(ctx context.Context) ([]Need, error) {
	accounts, err := h.DB.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	var out []Need
	for i := range accounts {
		a := &accounts[i]
		if !a.Enabled || a.State != agented.AccountNeedsLogin && a.State != agented.AccountOutOfCredit {
			continue
		}
		text := "Needs a login."
		if a.State == agented.AccountOutOfCredit {
			text = "Is out of credit."
		}
		if a.Evidence != "" {
			text = strings.TrimSuffix(text, ".") + ": " + sentence(h.Mask(a.Evidence))
		}
		out = append(out, Need{Kind: Account, ID: string(a.ID), Name: a.Label(), Text: text})
	}
	if len(out) == 0 {
		return nil, nil
	}
	pending, err := h.DB.Waiting(ctx, maxPending)
	if err != nil {
		return nil, err
	}
	for i := range out {
		for _, e := range pending {
			if e.WaitingOn != "" && strings.Contains(e.WaitingOn, out[i].Name) {
				out[i].Waiting++
			}
		}
		out[i].Urgent = out[i].Waiting > 0
	}
	return out, nil
}

func (h *Attention) triggers(ctx context.Context) ([]Need, error) {
	if !h.Unverified() {
		return nil, nil
	}
	on := true
	var out []Need
	for cursor := ""; ; {
		list, next, err := h.DB.Triggers(ctx, store.TriggerFilter{Enabled: &on}, store.Page{Limit: 200, Cursor: cursor})
		if err != nil {
			return nil, err
		}
		for i := range list {
			t := &list[i]
			if len(t.Webhooks) == 0 {
				continue
			}
			for _, hint := range h.Hints(t) {
				item := Need{Kind: Trigger, ID: string(t.ID), Name: t.Name, Text: strings.ToUpper(hint.Text[:1]) + hint.Text[1:] + ".", Urgent: true}
				if rest.Principal(ctx).May(agented.RoleAdmin) {
					item.Fix = hint.Fix
				}
				if out = append(out, item); len(out) >= maxItems {
					return out, nil
				}
				break // the first one of a trigger
			}
		}
		if cursor = next; cursor == "" {
			return out, nil
		}
	}
}

// overdue returns the triggers of which no execution has succeeded in time.
func (h *Attention) overdue(ctx context.Context) ([]Need, error) {
	list, err := h.DB.Overdue(ctx)
	if err != nil {
		return nil, err
	}
	var out []Need
	for i := range list {
		a := &list[i]
		text := a.Text(h.Now())
		out = append(out, Need{
			Kind: Trigger, ID: string(a.Trigger), Name: a.Name, Text: strings.ToUpper(text[:1]) + text[1:] + ".", Urgent: true, Since: rest.OptionalTime(a.Since),
		})
	}
	return out, nil
}

func (h *Attention) budgets(ctx context.Context) ([]Need, error) {
	list, err := h.DB.Budgets(ctx, h.Now())
	if err != nil {
		return nil, err
	}
	var out []Need
	for i := range list {
		b := &list[i]
		if !b.Enabled || !b.Reached() && !b.WarnReached() {
			continue
		}
		text := "Is nearly used up"
		if b.Reached() {
			text = "Is used up"
		}
		text += fmt.Sprintf(": %s of %s is spent.", agented.Dollars(b.Spent), agented.Dollars(b.Limit))
		if b.Reached() && b.Hard {
			text += " New executions wait."
		}
		out = append(out, Need{
			Kind: Budget, ID: string(b.ID), Name: b.Name, Text: text, Urgent: b.Reached() && b.Hard,
			SpentUSD: &b.Spent, LimitUSD: &b.Limit, Until: rest.OptionalTime(b.Until),
		})
	}
	return out, nil
}

func (h *Attention) server(context.Context) ([]Need, error) {
	var out []Need
	for _, text := range h.Notices() {
		out = append(out, Need{Kind: Server, Name: "This server", Text: h.Mask(text), Urgent: true})
	}
	return out, nil
}
