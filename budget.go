package agented

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Budget limits spending in a period.
type Budget struct {
	ID      BudgetID
	Name    string // unique, ignoring case
	Enabled bool
	Scope   BudgetScope
	Target  string // id of the trigger or the account; empty for all
	Period  Period
	Limit   float64 // USD
	Hard    bool    // new executions wait once it is used up
	Pause   bool    // hard budgets only: running executions are paused and ask a question
	Warn    int     // percent of the limit at which the first notification is sent; 0: only at the limit

	Spent     float64   // known cost in the current period
	Unknown   int64     // attempts in the period whose cost is unknown
	Since     time.Time // start of the current period
	Until     time.Time // end of the current period
	CreatedAt time.Time
	UpdatedAt time.Time
}

// BudgetID is the id of a budget: "bud-…".
type BudgetID string

// BudgetScope is what a budget counts. The values are stored and part of the
// API.
type BudgetScope string

// The scopes.
const (
	BudgetAll     BudgetScope = "all"
	BudgetTrigger BudgetScope = "trigger"
	BudgetAccount BudgetScope = "account"
)

// Period is a calendar period. The values are stored and part of the API.
type Period string

// The periods.
const (
	PeriodDay   Period = "day"
	PeriodWeek  Period = "week" // starts on Monday
	PeriodMonth Period = "month"
)

// Bounds returns the start and the end of the period that contains now in the
// time zone.
func (p Period) Bounds(now time.Time, zone *time.Location) (since, until time.Time) {
	year, month, day := now.In(zone).Date()
	at := func(month time.Month, day int) time.Time {
		t := time.Date(year, month, day, 0, 0, 0, 0, zone)
		y, m, d := t.Date()
		if time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Before(time.Date(year, month, day, 0, 0, 0, 0, time.UTC)) {
			// The clock skips midnight: the day begins after the gap.
			if _, next := t.ZoneBounds(); !next.IsZero() {
				return next
			}
		}
		return t
	}
	switch p {
	case PeriodWeek:
		monday := day - (int(now.In(zone).Weekday())+6)%7
		since, until = at(month, monday), at(month, monday+7)
	case PeriodMonth:
		since, until = at(month, 1), at(month+1, 1)
	default:
		since, until = at(month, day), at(month, day+1)
	}
	return since.UTC(), until.UTC()
}

// maxBudget is the largest budget in USD.
const maxBudget = 1e9

// Validate returns every invalid field of the budget with its fix. Fields are
// named as in the API.
func (b *Budget) Validate() []Field {
	var bad []Field
	refuse := func(path, format string, args ...any) { bad = append(bad, Field{path, fmt.Sprintf(format, args...)}) }
	name := strings.TrimSpace(b.Name)
	switch {
	case name == "":
		refuse("name", "is required: set a name for the budget")
	case name != b.Name || len(name) > MaxName || hasControl(name):
		refuse("name", "must be at most %d bytes, without white space at its ends and without control characters", MaxName)
	}
	switch b.Scope {
	case BudgetAll:
		if b.Target != "" {
			refuse("target", "does not apply to scope all: remove it, or set scope to trigger or account")
		}
	case BudgetTrigger, BudgetAccount:
		if b.Target == "" {
			refuse("target", "is required for scope %s: set its id", b.Scope)
		}
	default:
		refuse("scope", "must be all, trigger or account")
	}
	if !slices.Contains([]Period{PeriodDay, PeriodWeek, PeriodMonth}, b.Period) {
		refuse("period", "must be day, week or month")
	}
	if math.IsNaN(b.Limit) || b.Limit <= 0 || b.Limit > maxBudget {
		refuse("limit_usd", "must be above 0 and at most 1000000000")
	}
	if b.Pause && !b.Hard {
		refuse("pause", "applies to hard budgets only: set hard, or remove it")
	}
	if b.Warn < 0 || b.Warn > 99 {
		refuse("warn_percent", "must be from 0 (only when it is reached) to 99")
	}
	return bad
}

// Counts reports whether the cost of an attempt counts toward the budget.
func (b *Budget) Counts(trigger TriggerID, account AccountID) bool {
	switch b.Scope {
	case BudgetTrigger:
		return trigger != "" && b.Target == string(trigger)
	case BudgetAccount:
		return account != "" && b.Target == string(account)
	}
	return true
}

// Reached reports whether the limit is used up.
func (b *Budget) Reached() bool { return b.Spent >= b.Limit }

// WarnReached reports whether spending has reached the warning threshold.
func (b *Budget) WarnReached() bool { return b.Warn > 0 && b.Spent >= b.Limit*float64(b.Warn)/100 }

// Sentence describes how much of the budget is spent.
func (b *Budget) Sentence() string {
	return fmt.Sprintf("%s of the budget %q (%s a %s) are spent", Dollars(b.Spent), b.Name, Dollars(b.Limit), b.Period)
}

// Dollars formats a sum in USD.
func Dollars(v float64) string {
	if v != 0 && math.Abs(v) < 0.01 {
		return fmt.Sprintf("$%.4f", v)
	}
	return fmt.Sprintf("$%.2f", v)
}

// Since returns the difference between u and before, field by field, for
// sessions that report totals. Where a count is smaller than before, the CLI
// has restarted its count, and the new count is used. A field that is unknown
// in before counts in full.
func (u Usage) Since(before Usage) Usage {
	u.InputTokens = beyond(u.InputTokens, before.InputTokens)
	u.OutputTokens = beyond(u.OutputTokens, before.OutputTokens)
	u.CacheReadTokens = beyond(u.CacheReadTokens, before.CacheReadTokens)
	u.CacheWriteTokens = beyond(u.CacheWriteTokens, before.CacheWriteTokens)
	u.CostUSD = beyond(u.CostUSD, before.CostUSD)
	u.CumulativeSession = false
	return u
}

func beyond[T int64 | float64](now, before *T) *T {
	if now == nil || before == nil || *now < *before {
		return now
	}
	n := *now - *before
	return &n
}
