package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/policy"
)

// SetZone sets the time zone in which budget periods begin and end; the default
// is the machine's zone. Call it before the first use.
func (db *DB) SetZone(zone *time.Location) { db.zone = zone }

func (db *DB) clock() *time.Location {
	if db.zone == nil {
		return time.Local
	}
	return db.zone
}

const budgetColumns = `id, name, enabled, scope, target, period, limit_usd, hard, pauses, warn_percent, since, spent_usd, unknown, notified, created_at, updated_at`

// budget is a row: an agented.Budget and its sent notifications.
type budget struct {
	agented.Budget
	notified int
}

// trigger returns the trigger whose costs the budget counts, "" for another scope.
func (b *budget) trigger() agented.TriggerID {
	if b.Scope == agented.BudgetTrigger {
		return agented.TriggerID(b.Target)
	}
	return ""
}

func scanBudget(b *budget, scan func(...any) error) error {
	return scan(&b.ID, &b.Name, &b.Enabled, &b.Scope, &b.Target, &b.Period, &b.Limit, &b.Hard, &b.Pause, &b.Warn,
		toTime{&b.Since}, &b.Spent, &b.Unknown, &b.notified, toTime{&b.CreatedAt}, toTime{&b.UpdatedAt})
}

// budgets returns all budgets with their current period. Spending of an earlier
// period is recomputed.
func budgets(q querier, now time.Time, zone *time.Location) ([]budget, error) {
	rows, err := q.query(`SELECT ` + budgetColumns + ` FROM budget ORDER BY name_key`)
	list, err := collect(rows, err, scanBudget)
	if err != nil {
		return nil, err
	}
	for i := range list {
		b := &list[i]
		since, until := b.Period.Bounds(now, zone)
		b.Until = until
		if b.Since.Equal(since) {
			continue
		}
		b.Since, b.notified = since, 0
		if b.Spent, b.Unknown, err = spent(q, b.Scope, b.Target, since, until); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// spent sums the cost of a scope between two times, using an index.
func spent(q querier, scope agented.BudgetScope, target string, since, until time.Time) (usd float64, unknown int64, err error) {
	text, args := `SELECT COALESCE(SUM(cost_usd), 0), COUNT(*) - COUNT(cost_usd) FROM spending WHERE at >= $1 AND at < $2`, []any{micros(since), micros(until)}
	switch scope {
	case agented.BudgetTrigger:
		text, args = text+` AND trigger_id = $3`, append(args, target)
	case agented.BudgetAccount:
		text, args = text+` AND account = $3`, append(args, target)
	}
	err = q.row(text, args...).Scan(&usd, &unknown)
	return usd, unknown, err
}

// spend records the usage of an attempt in the ledger and the budgets. If the
// numbers count a whole session, they are first converted to the attempt's
// share; then Price may fill in the cost.
func (tx *tx) spend(end *AttemptEnd, at time.Time) error {
	a := &end.Attempt
	if err := tx.exec(`DELETE FROM pause WHERE execution_id = $1`, a.Execution); err != nil {
		return err
	}
	var row struct {
		trigger              agented.TriggerID
		name, backend, model string
		account              agented.AccountID
	}
	err := tx.row(`SELECT e.trigger_id, e.trigger_name, t.backend, t.model, t.account FROM attempt t JOIN execution e ON e.id = t.execution_id
		WHERE t.execution_id = $1 AND t.number = $2`, a.Execution, a.Number).Scan(&row.trigger, &row.name, &row.backend, &row.model, &row.account)
	if err != nil {
		return err
	}
	if a.Usage.CumulativeSession && a.SessionID != "" {
		if err := tx.sinceLast(row.backend, a, at); err != nil {
			return err
		}
	}
	if end.Model != "" {
		row.model = end.Model
	}
	if end.Price != nil && a.Usage.CostUSD == nil && a.Usage.Known() {
		if cost, ok := end.Price(row.backend, row.model, a.Usage); ok {
			a.Usage.CostUSD, a.Usage.Estimated = &cost, true
		}
	}
	if row.backend == agented.BackendCommand && !a.Usage.Known() || end.NotStarted {
		return nil
	}
	if a.Account != "" {
		row.account = a.Account
	}
	u := a.Usage
	err = tx.exec(`INSERT INTO spending (execution_id, attempt, at, trigger_id, trigger_name, account, backend, model,
			input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, estimated)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		a.Execution, a.Number, micros(at), row.trigger, row.name, row.account, row.backend, row.model,
		u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens, u.CostUSD, u.Estimated)
	if err != nil {
		return err
	}
	return tx.charge(row.trigger, row.account, at)
}

// sinceLast converts the totals of a session to the usage of the attempt. The
// session may have begun in another execution.
func (tx *tx) sinceLast(backend string, a *agented.Attempt, at time.Time) error {
	var before agented.Usage
	err := tx.row(`SELECT input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd FROM session_total
		WHERE backend = $1 AND session_id = $2`, backend, a.SessionID).
		Scan(&before.InputTokens, &before.OutputTokens, &before.CacheReadTokens, &before.CacheWriteTokens, &before.CostUSD)
	if err != nil && !missing(err) {
		return err
	}
	u := a.Usage
	if !u.Known() {
		return nil
	}
	a.Usage = u.Since(before)
	return tx.exec(`INSERT INTO session_total (backend, session_id, at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (backend, session_id) DO UPDATE SET at = excluded.at,
			input_tokens = COALESCE(excluded.input_tokens, session_total.input_tokens),
			output_tokens = COALESCE(excluded.output_tokens, session_total.output_tokens),
			cache_read_tokens = COALESCE(excluded.cache_read_tokens, session_total.cache_read_tokens),
			cache_write_tokens = COALESCE(excluded.cache_write_tokens, session_total.cache_write_tokens),
			cost_usd = COALESCE(excluded.cost_usd, session_total.cost_usd)`,
		backend, a.SessionID, micros(at), u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens, u.CostUSD)
}

// charge updates the budgets to which the cost counts.
func (tx *tx) charge(trigger agented.TriggerID, account agented.AccountID, at time.Time) error {
	rows, err := tx.query(`SELECT ` + budgetColumns + ` FROM budget`)
	list, err := collect(rows, err, scanBudget)
	if err != nil {
		return err
	}
	for i := range list {
		if b := &list[i]; b.Counts(trigger, account) {
			if err := tx.recount(b, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// recount recomputes a budget's spending from an index, over its own period
// only: adding to a stored sum would drift with each crash and clock change.
func (tx *tx) recount(b *budget, at time.Time) error {
	since, until := b.Period.Bounds(at, tx.db.clock())
	if b.Since.After(since) {
		return nil // an end of an earlier period that was recorded late
	}
	usd, unknown, err := spent(tx, b.Scope, b.Target, since, until)
	if err != nil {
		return err
	}
	if !b.Since.Equal(since) {
		b.notified = 0
	}
	b.Since, b.Until, b.Spent, b.Unknown = since, until, usd, unknown
	return tx.exec(`UPDATE budget SET since = $2, spent_usd = $3, unknown = $4, notified = $5 WHERE id = $1`, b.ID, micros(since), usd, unknown, b.notified)
}

// waitForBudget makes a pending execution wait if a hard budget of its trigger
// or of all executions is used up.
func (tx *tx) waitForBudget(c *candidate, now time.Time) (waits bool, err error) {
	hard, err := tx.hardBudgets(now)
	if err != nil || len(hard) == 0 {
		return false, err
	}
	by, reason := policy.BlockingBudget(c.trigger, hard)
	if by == nil {
		return false, tx.exec(`UPDATE execution SET budget_id = NULL WHERE id = $1 AND budget_id IS NOT NULL`, c.id)
	}
	seq, err := tx.change(c.id)
	if err != nil {
		return false, err
	}
	return true, tx.exec(`UPDATE execution SET due_at = $2, parked_on = NULL, held_by = NULL, budget_id = $3, reason = $4, event_seq = $5
		WHERE id = $1 AND status = 'pending'`, c.id, micros(by.Until), by.ID, format.Truncate(reason, maxSentence), seq)
}

// hardBudgets returns the enabled hard budgets.
func (tx *tx) hardBudgets(now time.Time) ([]agented.Budget, error) {
	var any bool
	if err := tx.row(`SELECT EXISTS (SELECT 1 FROM budget WHERE hard AND enabled)`).Scan(&any); err != nil || !any {
		return nil, err
	}
	list, err := budgets(tx, now, tx.db.clock())
	if err != nil {
		return nil, err
	}
	var hard []agented.Budget
	for _, b := range list {
		if b.Hard && b.Enabled {
			hard = append(hard, b.Budget)
		}
	}
	return hard, nil
}

// wakeBudgetWaiters makes executions that wait for a budget eligible again.
func (tx *tx) wakeBudgetWaiters(id agented.BudgetID, now time.Time) error {
	err := tx.exec(`UPDATE execution SET due_at = scheduled_at, budget_id = NULL WHERE budget_id = $1 AND status = 'pending' AND due_at IS NOT NULL`, id)
	if err != nil {
		return err
	}
	return tx.wakeAccountQueues(now)
}

// Budgets returns the budgets by name, with their state at now.
func (db *DB) Budgets(ctx context.Context, now time.Time) ([]agented.Budget, error) {
	var out []agented.Budget
	err := db.read(ctx, "budgets", func(r *reader) error {
		list, err := budgets(r, now, db.clock())
		for _, b := range list {
			out = append(out, b.Budget)
		}
		return err
	})
	return out, err
}

// Budget returns one budget with its state at now, or NotFound.
func (db *DB) Budget(ctx context.Context, id agented.BudgetID, now time.Time) (*agented.Budget, error) {
	list, err := db.Budgets(ctx, now)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i], nil
		}
	}
	return nil, noBudget(id)
}

func noBudget(id agented.BudgetID) error {
	return agented.Errorf(agented.NotFound, "there is no budget %s", id)
}

// SaveBudget stores a budget: a new one if its ID is empty, which is filled in,
// otherwise it replaces the one with that ID. Executions that wait for it are
// checked again. by is the actor for the audit log.
func (db *DB) SaveBudget(ctx context.Context, b *agented.Budget, by string, now time.Time) error {
	return db.write(ctx, "save budget", func(tx *tx) error {
		if err := tx.knownTarget(b); err != nil {
			return err
		}
		action := "budget.update"
		if b.ID == "" {
			action = "budget.create"
			b.ID, b.CreatedAt = agented.BudgetID(agented.NewID("bud", now)), stored(now)
			err := tx.execNow(`INSERT INTO budget (id, name, name_key, enabled, scope, period, limit_usd, hard, created_at, updated_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)`,
				b.ID, b.Name, fold(b.Name), b.Enabled, b.Scope, b.Period, b.Limit, b.Hard, micros(now))
			if duplicate(err) {
				return nameTaken("budget", b.Name, err)
			}
			if err != nil {
				return err
			}
		}
		b.UpdatedAt = stored(now)
		n, err := tx.affected(`UPDATE budget SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END, enabled = $4, scope = $5, target = $6, period = $7, limit_usd = $8, hard = $9,
				pauses = $10, warn_percent = $11, updated_at = $12, since = NULL, notified = 0 WHERE id = $1`,
			b.ID, b.Name, fold(b.Name), b.Enabled, b.Scope, b.Target, b.Period, b.Limit, b.Hard, b.Pause, b.Warn, micros(now))
		switch {
		case duplicate(err):
			return nameTaken("budget", b.Name, err)
		case err != nil:
			return err
		case n == 0:
			return noBudget(b.ID)
		}
		row := budget{Budget: *b}
		row.Since = time.Time{}
		if err := tx.recount(&row, now); err != nil {
			return err
		}
		b.Since, b.Until, b.Spent, b.Unknown = row.Since, row.Until, row.Spent, row.Unknown
		if err := tx.wakeBudgetWaiters(b.ID, now); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: action, Subject: string(b.ID), Detail: fmt.Sprintf("%s: %s a %s", b.Name, agented.Dollars(b.Limit), b.Period)})
	})
}

// knownTarget returns an error if the budget's trigger or account does not
// exist.
func (tx *tx) knownTarget(b *agented.Budget) error {
	table := map[agented.BudgetScope]string{agented.BudgetTrigger: "trigger_", agented.BudgetAccount: "account"}[b.Scope]
	if table == "" {
		return nil
	}
	var there bool
	err := tx.row(`SELECT EXISTS (SELECT 1 FROM `+table+` WHERE id = $1)`, b.Target).Scan(&there)
	if err == nil && !there {
		return agented.InvalidFields([]agented.Field{{Path: "target", Text: "there is no " + string(b.Scope) + " of that id"}})
	}
	return err
}

// DeleteBudget deletes a budget. The ledger remains.
func (db *DB) DeleteBudget(ctx context.Context, id agented.BudgetID, by string, now time.Time) error {
	return db.write(ctx, "delete budget", func(tx *tx) error {
		var name string
		err := tx.row(`DELETE FROM budget WHERE id = $1 RETURNING name`, id).Scan(&name)
		if missing(err) {
			return noBudget(id)
		}
		if err != nil {
			return err
		}
		if err := tx.wakeBudgetWaiters(id, now); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "budget.delete", Subject: string(id), Detail: name})
	})
}

// BudgetNotice is a budget for which a notification is due.
type BudgetNotice struct {
	agented.Budget
	Reached bool // false: it reached its warning threshold
}

// TakeBudgetNotices returns the budgets that have reached their warning threshold or
// their limit since the last call, and adds each to the audit log. Each of the
// two notifications is returned once per period.
func (db *DB) TakeBudgetNotices(ctx context.Context, now time.Time) ([]BudgetNotice, error) {
	var out []BudgetNotice
	var any bool
	err := db.row(ctx, `SELECT EXISTS (SELECT 1 FROM budget WHERE enabled AND notified < 2)`).Scan(&any)
	if err != nil || !any {
		return nil, explain("budget notices", err)
	}
	err = db.write(ctx, "budget notices", func(tx *tx) error {
		list, err := budgets(tx, now, db.clock())
		if err != nil {
			return err
		}
		for _, b := range list {
			level := 0
			switch {
			case !b.Enabled:
			case b.Reached():
				level = 2
			case b.WarnReached():
				level = 1
			}
			if level <= b.notified {
				continue
			}
			out = append(out, BudgetNotice{b.Budget, level == 2})
			err := tx.exec(`UPDATE budget SET notified = $2, since = $3, spent_usd = $4, unknown = $5 WHERE id = $1`, b.ID, level, micros(b.Since), b.Spent, b.Unknown)
			if err != nil {
				return err
			}
			if err := tx.notify(agented.Notice{Kind: agented.NotifyBudget, Trigger: b.trigger(), Subject: string(b.ID), Text: b.Sentence(), At: now}); err != nil {
				return err
			}
			action := map[int]string{1: "budget.near", 2: "budget.reached"}[level]
			if err := tx.audit(AuditEntry{Actor: "server", Action: action, Subject: string(b.ID), Detail: b.Sentence()}); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// UsageBy is a dimension of usage reports.
type UsageBy string

// The dimensions of usage reports.
const (
	UsageByDay     UsageBy = "day"
	UsageByTrigger UsageBy = "trigger"
	UsageByAccount UsageBy = "account"
	UsageByModel   UsageBy = "model"
	UsageByBackend UsageBy = "backend"
)

// UsageSum is the usage of one group in a period.
type UsageSum struct {
	Key       string // a day as 2006-01-02, an id, or a name; empty: none or unknown
	Name      string // display name, if there is one
	Usage     agented.Usage
	Attempts  int64
	Unknown   int64 // attempts whose cost is unknown
	Estimated int64 // attempts whose cost was estimated from the price list
}

const usageSums = `COUNT(*), COUNT(*) - COUNT(cost_usd), COALESCE(SUM(CASE WHEN estimated THEN 1 ELSE 0 END), 0),
	SUM(input_tokens), SUM(output_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens), SUM(cost_usd)`

func scanUsage(s *UsageSum, first []any, scan func(...any) error) error {
	err := scan(append(first, &s.Attempts, &s.Unknown, &s.Estimated,
		&s.Usage.InputTokens, &s.Usage.OutputTokens, &s.Usage.CacheReadTokens, &s.Usage.CacheWriteTokens, &s.Usage.CostUSD)...)
	s.Usage.Estimated = s.Estimated > 0
	return err
}

// maxUsageDays limits a report by day.
const maxUsageDays = 400

// Usage sums the usage of the attempts that ended from since until before
// until. Days are those of the zone, and all are listed in order; other groups
// are sorted by cost, highest first.
func (db *DB) Usage(ctx context.Context, by UsageBy, since, until time.Time) ([]UsageSum, error) {
	var out []UsageSum
	err := db.read(ctx, "usage", func(r *reader) (err error) {
		if by == UsageByDay {
			out, err = db.usageByDay(r, since, until)
			return err
		}
		key, name := "", "''"
		switch by {
		case UsageByTrigger:
			key, name = "trigger_id", "MAX(trigger_name)"
		case UsageByAccount:
			key, name = "account", "COALESCE((SELECT backend || '/' || name FROM account a WHERE a.id = spending.account), '')"
		case UsageByModel:
			key = "model"
		case UsageByBackend:
			key = "backend"
		default:
			return agented.Errorf(agented.Invalid, "by must be day, trigger, account, model or backend")
		}
		rows, err := r.query(`SELECT `+key+`, `+name+`, `+usageSums+` FROM spending WHERE at >= $1 AND at < $2
			GROUP BY `+key+` ORDER BY COALESCE(SUM(cost_usd), 0) DESC, COUNT(*) DESC, `+key+` LIMIT 1000`, micros(since), micros(until))
		out, err = collect(rows, err, func(s *UsageSum, scan func(...any) error) error {
			return scanUsage(s, []any{&s.Key, &s.Name}, scan)
		})
		return err
	})
	return out, err
}

func (db *DB) usageByDay(r *reader, since, until time.Time) ([]UsageSum, error) {
	var out []UsageSum
	for at := since; at.Before(until); {
		if len(out) == maxUsageDays {
			return nil, agented.Errorf(agented.Invalid, "that is more than %d days: ask for fewer", maxUsageDays)
		}
		_, end := agented.PeriodDay.Bounds(at, db.clock())
		stop := end
		if until.Before(stop) {
			stop = until
		}
		s := UsageSum{Key: at.In(db.clock()).Format(time.DateOnly)}
		row := r.row(`SELECT `+usageSums+` FROM spending WHERE at >= $1 AND at < $2`, micros(at), micros(stop))
		if err := scanUsage(&s, nil, row.Scan); err != nil {
			return nil, err
		}
		out = append(out, s)
		at = end
	}
	return out, nil
}

// SessionTotal returns the totals of a CLI's session at the end of its latest
// attempt; zero if there is none.
func (db *DB) SessionTotal(ctx context.Context, backend, session string) (agented.Usage, error) {
	var u agented.Usage
	err := db.row(ctx, `SELECT input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd FROM session_total
		WHERE backend = $1 AND session_id = $2`, backend, session).
		Scan(&u.InputTokens, &u.OutputTokens, &u.CacheReadTokens, &u.CacheWriteTokens, &u.CostUSD)
	if missing(err) {
		return u, nil
	}
	return u, explain("session total", err)
}
