package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
)

// TriggerFilter narrows a list of triggers. Zero fields do not.
type TriggerFilter struct {
	Enabled *bool
	Query   string // start of the name, ignoring case
}

const triggerColumns = `id, name, enabled, spec, created_at, updated_at`

func scanTrigger(t *agented.Trigger, scan func(...any) error) error {
	var spec []byte
	if err := scan(&t.ID, &t.Name, &t.Enabled, &spec, toTime{&t.CreatedAt}, toTime{&t.UpdatedAt}); err != nil {
		return err
	}
	return json.Unmarshal(spec, &t.Spec)
}

// fold is the key under which a name is unique, ignoring case.
func fold(name string) string { return strings.ToLower(name) }

// CreateTrigger stores a new trigger. Empty ID, CreatedAt and UpdatedAt are
// filled in. A taken name is a Conflict. by is who asks, for the audit.
func (db *DB) CreateTrigger(ctx context.Context, t *agented.Trigger, by string) error {
	now := stored(time.Now())
	if t.CreatedAt.IsZero() {
		t.CreatedAt = now
	}
	if t.UpdatedAt.IsZero() {
		t.UpdatedAt = t.CreatedAt
	}
	t.CreatedAt, t.UpdatedAt = stored(t.CreatedAt), stored(t.UpdatedAt)
	if t.ID == "" {
		t.ID = agented.TriggerID(agented.NewID("trg", t.CreatedAt))
	}
	spec, err := json.Marshal(t.Spec)
	if err != nil {
		return fmt.Errorf("create trigger: %w", err)
	}
	return db.write(ctx, "create trigger", func(tx *tx) error {
		err := tx.exec(`INSERT INTO trigger_ (id, name, name_key, enabled, spec, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			t.ID, t.Name, fold(t.Name), t.Enabled, string(spec), micros(t.CreatedAt), micros(t.UpdatedAt))
		if duplicate(err) {
			return nameTaken("trigger", t.Name, err)
		}
		if err != nil {
			return err
		}
		if err := tx.setSchedules(t, t.CreatedAt); err != nil {
			return err
		}
		if err := tx.setMessageRules(t); err != nil {
			return err
		}
		if err := tx.setWebhooks(t); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "trigger.create", Subject: string(t.ID), Detail: t.Name})
	})
}

func nameTaken(noun, name string, err error) error {
	return agented.Errorf(agented.Conflict, "there is already a %s named %q: choose another name", noun, name).Because(err)
}

// UpdateTrigger replaces all of the trigger with t.ID but its id and times, and
// sets t.UpdatedAt. A new MaxConcurrent holds for the executions that wait,
// too. NotFound when there is no such trigger, Conflict when the name is taken.
func (db *DB) UpdateTrigger(ctx context.Context, t *agented.Trigger, by string) error {
	spec, err := json.Marshal(t.Spec)
	if err != nil {
		return fmt.Errorf("update trigger: %w", err)
	}
	return db.write(ctx, "update trigger", func(tx *tx) error {
		now := stored(time.Now())
		err := tx.row(`UPDATE trigger_ SET name = $2, name_key = $3, enabled = $4, spec = $5, updated_at = $6
			WHERE id = $1 RETURNING created_at, updated_at`,
			t.ID, t.Name, fold(t.Name), t.Enabled, string(spec), micros(now)).Scan(toTime{&t.CreatedAt}, toTime{&t.UpdatedAt})
		switch {
		case missing(err):
			return noTrigger(t.ID)
		case duplicate(err):
			return nameTaken("trigger", t.Name, err)
		case err != nil:
			return err
		}
		if err := tx.resize(t.ID, t.Spec.MaxConcurrent); err != nil {
			return err
		}
		if err := tx.setSchedules(t, now); err != nil {
			return err
		}
		if err := tx.setMessageRules(t); err != nil {
			return err
		}
		if err := tx.setWebhooks(t); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "trigger.update", Subject: string(t.ID), Detail: t.Name})
	})
}

// DeleteTrigger removes the trigger and cancels its executions that wait. Those
// that run go on, and the history stays.
func (db *DB) DeleteTrigger(ctx context.Context, id agented.TriggerID, by string) error {
	return db.write(ctx, "delete trigger", func(tx *tx) error {
		var name string
		err := tx.row(`DELETE FROM trigger_ WHERE id = $1 RETURNING name`, id).Scan(&name)
		if missing(err) {
			return noTrigger(id)
		}
		if err != nil {
			return err
		}
		if err := tx.rulesChanged(); err != nil {
			return err
		}
		pending, err := tx.pendingOf(id)
		if err != nil {
			return err
		}
		now := stored(time.Now())
		for _, e := range pending {
			if err := tx.cancelPending(e, "its trigger was deleted", by, now); err != nil {
				return err
			}
		}
		return tx.audit(AuditEntry{Actor: by, Action: "trigger.delete", Subject: string(id), Detail: name})
	})
}

func noTrigger(id agented.TriggerID) error {
	return agented.Errorf(agented.NotFound, "no trigger %q", id)
}

// Trigger returns one trigger, or NotFound.
func (db *DB) Trigger(ctx context.Context, id agented.TriggerID) (*agented.Trigger, error) {
	return db.oneTrigger(ctx, `id = $1`, string(id), noTrigger(id))
}

// oneTrigger returns the trigger that meets the condition, or unknown.
func (db *DB) oneTrigger(ctx context.Context, cond, key string, unknown error) (*agented.Trigger, error) {
	list := make([]agented.Trigger, 1)
	err := db.read(ctx, "trigger", func(r *reader) error {
		err := scanTrigger(&list[0], r.row(`SELECT `+triggerColumns+` FROM trigger_ WHERE `+cond, key).Scan)
		if missing(err) {
			return unknown
		}
		if err != nil {
			return err
		}
		return fillTriggers(r, list)
	})
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// fillTriggers loads what triggers have beside their row.
func fillTriggers(q querier, list []agented.Trigger) error {
	if err := loadSchedules(q, list); err != nil {
		return err
	}
	if err := loadMessageRules(q, list); err != nil {
		return err
	}
	return loadWebhooks(q, list)
}

// TriggerByName returns the trigger of that name, ignoring case, or NotFound.
func (db *DB) TriggerByName(ctx context.Context, name string) (*agented.Trigger, error) {
	return db.oneTrigger(ctx, `name_key = $1`, fold(name), agented.Errorf(agented.NotFound, "no trigger named %q", name))
}

// Triggers returns a page of triggers in the order of their names, and the
// cursor of the next page, empty when there is none.
func (db *DB) Triggers(ctx context.Context, f TriggerFilter, p Page) ([]agented.Trigger, string, error) {
	var w where
	after, err := p.after("trigger", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.and(`name_key > $?`, after[0])
	}
	if f.Enabled != nil {
		w.and(`enabled = $?`, *f.Enabled)
	}
	if f.Query != "" {
		w.and(`name_key >= $? AND name_key < $?`, fold(f.Query), fold(f.Query)+lastRune)
	}
	limit := p.limit()
	var list []agented.Trigger
	err = db.read(ctx, "triggers", func(r *reader) error {
		rows, err := r.query(`SELECT `+triggerColumns+` FROM trigger_`+w.sql()+` ORDER BY name_key LIMIT `+fmt.Sprint(limit+1), w.args...)
		if list, err = collect(rows, err, scanTrigger); err != nil {
			return err
		}
		return fillTriggers(r, list)
	})
	if err != nil {
		return nil, "", err
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("trigger", fold(list[limit-1].Name)), nil
}
