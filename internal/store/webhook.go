package store

import (
	"context"
	"errors"

	"github.com/agented/agented"
)

// hookVersion is a setting that changes with every change of a trigger, so that
// caches of rules can detect that they are outdated.
const hookVersion = "webhook_version"

// ruleWriter increments the version.
const ruleWriter = `INSERT INTO setting (key, value) VALUES ($1, '1')
	ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(setting.value AS BIGINT) + 1 AS TEXT)`

// rulesChanged records that a trigger was written. Every write of a trigger
// calls it, in a transaction of [DB.writeRules].
func (tx *tx) rulesChanged() error {
	if !tx.gated {
		return errors.New("rules are changed outside of writeRules")
	}
	tx.rules, tx.ruled = "", true
	err := tx.exec(ruleWriter, hookVersion)
	if err == nil {
		_, err = tx.hookVersion() // to publish it after the commit
	}
	return err
}

// writeRules is write for transactions that may change rules. It waits until no
// caller of [DB.HoldRules] holds them.
func (db *DB) writeRules(ctx context.Context, what string, f func(*tx) error) error {
	if togetherIn(ctx, db) == nil { // which holds the gate
		db.gate.Lock()
		defer db.gate.Unlock()
	}
	return db.write(ctx, what, func(tx *tx) error {
		tx.gated = true
		return f(tx)
	})
}

// HoldRules prevents changes of triggers and their rules until release is
// called: changes wait, and evaluations cannot become outdated. Hold them only
// for one evaluation and its transaction. It waits for a change that is being
// committed, and waiting changes go first.
func (db *DB) HoldRules() (release func()) {
	db.gate.RLock()
	return db.gate.RUnlock
}

const webhookColumns = `trigger_id, id, source, enabled, supersede, auth, match_, secret`

type webhookRow struct {
	trigger agented.TriggerID
	webhook agented.Webhook
}

func scanWebhook(r *webhookRow, scan func(...any) error) error {
	w := &r.webhook
	var auth, match string
	if err := scan(&r.trigger, &w.ID, &w.Source, &w.Enabled, &w.Supersede, &auth, &match, &w.Secret); err != nil {
		return err
	}
	if auth != "" {
		w.Auth = []byte(auth)
	}
	if match != "" {
		w.Match = []byte(match)
	}
	return nil
}

// setWebhooks replaces the webhooks of a trigger.
func (tx *tx) setWebhooks(t *agented.Trigger) error {
	if err := tx.exec(`DELETE FROM webhook WHERE trigger_id = $1`, t.ID); err != nil {
		return err
	}
	for i, w := range t.Webhooks {
		err := tx.exec(`INSERT INTO webhook (id, trigger_id, place, source, enabled, supersede, auth, match_, secret)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			w.ID, t.ID, i, w.Source, w.Enabled, w.Supersede, string(w.Auth), string(w.Match), w.Secret)
		if err != nil {
			return err
		}
	}
	return tx.rulesChanged()
}

// loadWebhooks loads the webhooks of triggers.
func loadWebhooks(q querier, list []agented.Trigger) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.TriggerID]int, len(list))
	ids := make([]agented.TriggerID, len(list))
	for i := range list {
		ids[i], place[list[i].ID] = list[i].ID, i
	}
	var w where
	rows, err := q.query(`SELECT `+webhookColumns+` FROM webhook WHERE trigger_id IN `+in(&w, ids)+` ORDER BY trigger_id, place`, w.Args()...)
	all, err := collect(rows, err, scanWebhook)
	for _, r := range all {
		t := &list[place[r.trigger]]
		t.Webhooks = append(t.Webhooks, r.webhook)
	}
	return err
}

// HookVersion returns a text that changes with every change of a trigger. It is
// cached in memory, and may be older than a change that is being committed: the
// transaction that relies on it checks it again.
func (db *DB) HookVersion() string { return *db.rules.Load() }

// loadRules reads the version when the database is opened.
func (db *DB) loadRules(ctx context.Context) error {
	v := "0"
	err := db.row(ctx, `SELECT value FROM setting WHERE key = $1`, hookVersion).Scan(&v)
	if err != nil && !missing(err) {
		return explain("version of the rules", err)
	}
	db.rules.Store(&v)
	return nil
}

// hookVersion is HookVersion within the transaction; it is read once per
// transaction.
func (tx *tx) hookVersion() (string, error) {
	if tx.rules != "" {
		return tx.rules, nil
	}
	v := "0"
	err := tx.row(`SELECT value FROM setting WHERE key = $1`, hookVersion).Scan(&v)
	if err != nil && !missing(err) {
		return "", err
	}
	tx.rules = v
	return v, nil
}

// HookTriggers returns every trigger that has a webhook, in the order of their
// ids, and their version. Secrets are sealed.
func (db *DB) HookTriggers(ctx context.Context) ([]agented.Trigger, string, error) {
	var list []agented.Trigger
	version := "0"
	err := db.read(ctx, "webhooks", func(r *reader) error {
		err := r.row(`SELECT value FROM setting WHERE key = $1`, hookVersion).Scan(&version)
		if err != nil && !missing(err) {
			return err
		}
		rows, err := r.query(`SELECT ` + triggerColumns + ` FROM trigger_ WHERE id IN (SELECT trigger_id FROM webhook) ORDER BY id`)
		if list, err = collect(rows, err, scanTrigger); err != nil {
			return err
		}
		for i := 0; i < len(list); i += 500 { // SQL statements have a limit of arguments
			if err := loadWebhooks(r, list[i:min(i+500, len(list))]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, version, err
}
