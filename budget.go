package agented

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Budget bounds what is spent in a period.
type Budget struct {
	ID      BudgetID
	Name    string // unique, ignoring case
	Enabled bool
	Scope   BudgetScope
	Target  string // id of the trigger or the account; empty for all
	Period  Period
	Limit   float64 // USD
	Hard    bool    // new executions wait when it is used up
	Pause   bool    // of a hard one: what runs is paused and asks
	Warn    int     // percent of the limit at which it is told first; 0: only when it is reached

	Spent     float64   // in the current period, as far as it is known
	Unknown   int64     // attempts in it whose cost nobody knows
	Since     time.Time // when the current period began
	Until     time.Time // when it ends
	CreatedAt time.Time
	UpdatedAt time.Time
}

// BudgetID is the id of a budget, bud-….
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

// Period is a piece of the calendar. The values are stored and part of the API.
type Period string

// The periods.
const (
	PeriodDay   Period = "day"
	PeriodWeek  Period = "week" // from Monday on
	PeriodMonth Period = "month"
)

// Bounds returns the period that now is in, on the clock of the zone.
func (p Period) Bounds(now time.Time, zone *time.Location) (since, until time.Time) {
	year, month, day := now.In(zone).Date()
	at := func(month time.Month, day int) time.Time {
		t := time.Date(year, month, day, 0, 0, 0, 0, zone)
		y, m, d := t.Date()
		if time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Before(time.Date(year, month, day, 0, 0, 0, 0, time.UTC)) {
			// The clock skips midnight: the day begins where it goes on.
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

// maxBudget bounds a budget in USD.
const maxBudget = 1e9

// Validate returns every field of the budget that cannot stand. Names of fields
// are those of the API.
func (b *Budget) Validate() []Field {
	var bad []Field
	refuse := func(path, format string, args ...any) { bad = append(bad, Field{path, fmt.Sprintf(format, args...)}) }
	name := strings.TrimSpace(b.Name)
	switch {
	case name == "":
		refuse("name", "is required: give the budget a name")
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
			refuse("target", "is required for scope %s: give its id", b.Scope)
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

// Counts reports whether what an attempt costs goes against the budget.
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

// Near reports whether as much is used as is to be told of.
func (b *Budget) Near() bool { return b.Warn > 0 && b.Spent >= b.Limit*float64(b.Warn)/100 }

// Sentence says how the budget stands.
func (b *Budget) Sentence() string {
	return fmt.Sprintf("%s of the budget %q (%s a %s) are spent", Dollars(b.Spent), b.Name, Dollars(b.Limit), b.Period)
}

// Dollars writes a sum for people.
func Dollars(v float64) string {
	if v != 0 && math.Abs(v) < 0.01 {
		return fmt.Sprintf("$%.4f", v)
	}
	return fmt.Sprintf("$%.2f", v)
}

// Since returns what u counts beyond before, field by field, for sessions that
// count themselves as a whole. Where a count is smaller than before it has begun
// anew, and stands for itself. A field that before does not know counts whole.
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
