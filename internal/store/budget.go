package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// SetZone sets the zone on whose clock budgets begin and end; without it is the
// machine's. Call it before the first use.
func (db *DB) SetZone(zone *time.Location) { db.zone = zone }

func (db *DB) clock() *time.Location {
	if db.zone == nil {
		return time.Local
	}
	return db.zone
}

const budgetColumns = `id, name, enabled, scope, target, period, limit_usd, hard, pauses, warn_percent, since, spent_usd, unknown, told, created_at, updated_at`

// budget is a row: an agented.Budget and whether it has been told of.
type budget struct {
	agented.Budget
	told int
}

func scanBudget(b *budget, scan func(...any) error) error {
	return scan(&b.ID, &b.Name, &b.Enabled, &b.Scope, &b.Target, &b.Period, &b.Limit, &b.Hard, &b.Pause, &b.Warn,
		toTime{&b.Since}, &b.Spent, &b.Unknown, &b.told, toTime{&b.CreatedAt}, toTime{&b.UpdatedAt})
}

// budgets reads all of them, each with the period that now is in. What was
// counted for an earlier one is counted anew.
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
		b.Since, b.told = since, 0
		if b.Spent, b.Unknown, err = spent(q, b.Scope, b.Target, since, until); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// spent adds up what a scope cost between two times, from an index.
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

// spend enters what an attempt used into the ledger and into the budgets. An
// end whose numbers count a whole session is turned into what the attempt
// itself added to them; then Price may fill in what it cost.
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

// sinceLast turns the numbers of a session into those of the attempt. The
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

// charge brings the budgets that count the spending up to date.
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

// recount counts a budget anew. The sum is read from an index, and only over
// its own period: adding up in the row would drift with each crash and clock.
func (tx *tx) recount(b *budget, at time.Time) error {
	since, until := b.Period.Bounds(at, tx.db.clock())
	if b.Since.After(since) {
		return nil // an end that is written down late, of a period that is over
	}
	usd, unknown, err := spent(tx, b.Scope, b.Target, since, until)
	if err != nil {
		return err
	}
	if !b.Since.Equal(since) {
		b.told = 0
	}
	b.Since, b.Until, b.Spent, b.Unknown = since, until, usd, unknown
	return tx.exec(`UPDATE budget SET since = $2, spent_usd = $3, unknown = $4, told = $5 WHERE id = $1`, b.ID, micros(since), usd, unknown, b.told)
}

// waitForBudget lets a pending execution wait when a hard budget of its trigger
// or of all is used up.
func (tx *tx) waitForBudget(c *candidate, now time.Time) (waits bool, err error) {
	hard, err := tx.hardBudgets(now)
	if err != nil || len(hard) == 0 {
		return false, err
	}
	var by *budget
	for i := range hard {
		b := &hard[i]
		if b.Scope != agented.BudgetAccount && b.Reached() && b.Counts(c.trigger, "") && (by == nil || b.Until.After(by.Until)) {
			by = b
		}
	}
	if by == nil {
		return false, tx.exec(`UPDATE execution SET budget_id = NULL WHERE id = $1 AND budget_id IS NOT NULL`, c.id)
	}
	seq, err := tx.change(c.id)
	if err != nil {
		return false, err
	}
	reason := fmt.Sprintf("waits until %s: %s; it goes on sooner if the budget is raised", agented.Clock(by.Until), by.Sentence())
	return true, tx.exec(`UPDATE execution SET due_at = $2, parked_on = NULL, held_by = NULL, budget_id = $3, reason = $4, event_seq = $5
		WHERE id = $1 AND status = 'pending'`, c.id, micros(by.Until), by.ID, clip(reason, maxSentence), seq)
}

// hardBudgets reads the hard budgets that are enabled.
func (tx *tx) hardBudgets(now time.Time) ([]budget, error) {
	var any bool
	if err := tx.row(`SELECT EXISTS (SELECT 1 FROM budget WHERE hard AND enabled)`).Scan(&any); err != nil || !any {
		return nil, err
	}
	list, err := budgets(tx, now, tx.db.clock())
	if err != nil {
		return nil, err
	}
	var hard []budget
	for _, b := range list {
		if b.Hard && b.Enabled {
			hard = append(hard, b)
		}
	}
	return hard, nil
}

// rest lets the accounts whose hard budgets are used up rest until the period
// ends, as far as the claim is concerned.
func (tx *tx) rest(accounts []agented.Account, now time.Time) error {
	hard, err := tx.hardBudgets(now)
	if err != nil {
		return err
	}
	for i := range accounts {
		a := &accounts[i]
		for j := range hard {
			b := &hard[j]
			if b.Scope != agented.BudgetAccount || b.Target != string(a.ID) || !b.Reached() {
				continue
			}
			waits := a.State == agented.AccountReady || a.State == agented.AccountCooling && a.Until.Before(b.Until)
			if waits {
				a.State, a.Until, a.Probing, a.Evidence = agented.AccountCooling, b.Until, false, b.Sentence()
			}
		}
	}
	return nil
}

// free lets what waits for a budget be looked at again.
func (tx *tx) free(id agented.BudgetID, now time.Time) error {
	err := tx.exec(`UPDATE execution SET due_at = scheduled_at, budget_id = NULL WHERE budget_id = $1 AND status = 'pending' AND due_at IS NOT NULL`, id)
	if err != nil {
		return err
	}
	return tx.wakeLanes(now)
}

// Budgets lists the budgets by name, as they stand at now.
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

// Budget returns one budget as it stands at now, or NotFound.
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
// else in the place of the one with that ID. What waits for it is looked at
// again. by is who asks, for the audit.
func (db *DB) SaveBudget(ctx context.Context, b *agented.Budget, by string, now time.Time) error {
	return db.write(ctx, "save budget", func(tx *tx) error {
		if err := tx.knownTarget(b); err != nil {
			return err
		}
		action := "budget.update"
		if b.ID == "" {
			action = "budget.create"
			b.ID, b.CreatedAt = agented.BudgetID(agented.NewID("bud", now)), stored(now)
			err := tx.exec(`INSERT INTO budget (id, name, name_key, enabled, scope, period, limit_usd, hard, created_at, updated_at)
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
		n, err := tx.affected(`UPDATE budget SET name = $2, name_key = $3, enabled = $4, scope = $5, target = $6, period = $7, limit_usd = $8, hard = $9,
				pauses = $10, warn_percent = $11, updated_at = $12, since = NULL, told = 0 WHERE id = $1`,
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
		if err := tx.free(b.ID, now); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: action, Subject: string(b.ID), Detail: fmt.Sprintf("%s: %s a %s", b.Name, agented.Dollars(b.Limit), b.Period)})
	})
}

// knownTarget refuses a budget of something that is not there.
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

// DeleteBudget removes a budget. What was spent stays in the ledger.
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
		if err := tx.free(id, now); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "budget.delete", Subject: string(id), Detail: name})
	})
}

// Told is a budget of which people are to be told.
type Told struct {
	agented.Budget
	Reached bool // else it is near
}

// TellBudgets returns the budgets that have come near their limit or reached it
// in their period since it was asked last, and notes each in the audit log. Each
// is told of once a period for each of the two.
func (db *DB) TellBudgets(ctx context.Context, now time.Time) ([]Told, error) {
	var out []Told
	var any bool
	err := db.r.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM budget WHERE enabled AND told < 2)`).Scan(&any)
	if err != nil || !any {
		return nil, db.explain("tell budgets", err)
	}
	err = db.write(ctx, "tell budgets", func(tx *tx) error {
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
			case b.Near():
				level = 1
			}
			if level <= b.told {
				continue
			}
			out = append(out, Told{b.Budget, level == 2})
			err := tx.exec(`UPDATE budget SET told = $2, since = $3, spent_usd = $4, unknown = $5 WHERE id = $1`, b.ID, level, micros(b.Since), b.Spent, b.Unknown)
			if err != nil {
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
