package store

import (
	"context"

	"github.com/agented/agented"
)

// hookVersion is the setting that changes with every change of a trigger, so
// that whoever keeps rules in memory knows when they are old.
const hookVersion = "webhook_version"

// ruleWriter gives the version its next value.
const ruleWriter = `INSERT INTO setting (key, value) VALUES ($1, '1')
	ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(setting.value AS BIGINT) + 1 AS TEXT)`

// rulesChanged notes that a trigger was written. Each write of one calls it.
func (tx *tx) rulesChanged() error {
	tx.rules, tx.ruled = "", true
	err := tx.exec(ruleWriter, hookVersion)
	if err == nil {
		_, err = tx.hookVersion() // for when it is committed
	}
	return err
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

// setWebhooks replaces the webhooks of a trigger by those that it holds.
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

// loadWebhooks fills in the webhooks of triggers.
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
	rows, err := q.query(`SELECT `+webhookColumns+` FROM webhook WHERE trigger_id IN `+in(&w, ids)+` ORDER BY trigger_id, place`, w.args...)
	all, err := collect(rows, err, scanWebhook)
	for _, r := range all {
		t := &list[place[r.trigger]]
		t.Webhooks = append(t.Webhooks, r.webhook)
	}
	return err
}

// HookVersion returns a text that is another one after every change of a
// trigger. It is known without asking the database, and may be older than a
// change that is just being committed: what relies on it is checked again in the
// transaction that it leads to.
func (db *DB) HookVersion() string { return *db.rules.Load() }

// loadRules looks the version up when the database has been opened.
func (db *DB) loadRules(ctx context.Context) error {
	v := "0"
	err := db.r.QueryRowContext(ctx, `SELECT value FROM setting WHERE key = $1`, hookVersion).Scan(&v)
	if err != nil && !missing(err) {
		return db.explain("version of the rules", err)
	}
	db.rules.Store(&v)
	return nil
}

// hookVersion is HookVersion as the transaction sees it; many deliveries that
// share one ask but once.
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
// ids, and the version that they are of. Secrets are sealed.
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
