package store

import (
	"context"
	"time"

	"github.com/agented/agented"
)

// UsageBy is what usage is added up by.
type UsageBy string

// The ways to add usage up.
const (
	UsageByDay     UsageBy = "day"
	UsageByTrigger UsageBy = "trigger"
	UsageByAccount UsageBy = "account"
	UsageByModel   UsageBy = "model"
	UsageByBackend UsageBy = "backend"
)

// UsageSum is what was used in a period by one of those.
type UsageSum struct {
	Key       string // a day as 2006-01-02, an id, or a name; empty: none, or not known
	Name      string // for people, where there is one
	Usage     agented.Usage
	Attempts  int64
	Unknown   int64 // of them, whose cost nobody knows
	Estimated int64 // of them, whose cost was worked out from a list of prices
}

const usageSums = `COUNT(*), COUNT(*) - COUNT(cost_usd), COALESCE(SUM(CASE WHEN estimated THEN 1 ELSE 0 END), 0),
	SUM(input_tokens), SUM(output_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens), SUM(cost_usd)`

func scanUsage(s *UsageSum, first []any, scan func(...any) error) error {
	err := scan(append(first, &s.Attempts, &s.Unknown, &s.Estimated,
		&s.Usage.InputTokens, &s.Usage.OutputTokens, &s.Usage.CacheReadTokens, &s.Usage.CacheWriteTokens, &s.Usage.CostUSD)...)
	s.Usage.Estimated = s.Estimated > 0
	return err
}

// maxUsageDays bounds a list by day.
const maxUsageDays = 400

// Usage adds up what the attempts used that ended from since until before
// until. Days are those of the zone, and each is listed, the first in front; all
// else is in the order of what it cost.
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

// Spent adds up what a scope has cost between two times as far as it is known,
// and counts the attempts of which nobody knows.
func (db *DB) Spent(ctx context.Context, scope agented.BudgetScope, target string, since, until time.Time) (usd float64, unknown int64, err error) {
	err = db.read(ctx, "spent", func(r *reader) (err error) {
		usd, unknown, err = spent(r, scope, target, since, until)
		return err
	})
	return usd, unknown, err
}

// SessionTotal is what a CLI's session had counted as a whole when an attempt
// in it ended last; the zero value if none has.
func (db *DB) SessionTotal(ctx context.Context, backend, session string) (agented.Usage, error) {
	var u agented.Usage
	err := db.r.QueryRowContext(ctx, `SELECT input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd FROM session_total
		WHERE backend = $1 AND session_id = $2`, backend, session).
		Scan(&u.InputTokens, &u.OutputTokens, &u.CacheReadTokens, &u.CacheWriteTokens, &u.CostUSD)
	if missing(err) {
		return u, nil
	}
	return u, db.explain("session total", err)
}
