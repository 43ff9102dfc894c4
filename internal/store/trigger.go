package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/deadman"
)

// TriggerFilter filters a list of triggers. Zero fields match all.
type TriggerFilter struct {
	Enabled *bool
	Query   string              // part of the name, ignoring case
	Only    []agented.TriggerID // one of these; empty: any
}

const triggerColumns = `id, name, enabled, spec, created_at, updated_at`

func scanTrigger(t *agented.Trigger, scan func(...any) error) error {
	var spec []byte
	if err := scan(&t.ID, &t.Name, &t.Enabled, &spec, toTime{&t.CreatedAt}, toTime{&t.UpdatedAt}); err != nil {
		return err
	}
	return json.Unmarshal(spec, &t.Spec)
}

// CreateTrigger stores a new trigger. It fills in an empty ID, CreatedAt and
// UpdatedAt. It returns Conflict if the name is in use. by is the actor for the
// audit log.
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
	return db.writeRules(ctx, "create trigger", func(tx *tx) error {
		if err := tx.checkSecretRefs(t.Spec.SecretRefs()); err != nil {
			return err
		}
		if err := tx.checkNotify(t.Spec.Notify); err != nil {
			return err
		}
		err := tx.execNow(`INSERT INTO trigger_ (id, name, name_key, enabled, spec, created_at, updated_at)
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
		if err := deadman.Set(tx, t, t.CreatedAt); err != nil {
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

// UpdateTrigger replaces the trigger with t.ID, except its id and times, and
// sets t.UpdatedAt. A new MaxConcurrent also applies to pending executions. It
// returns NotFound if the trigger does not exist, and Conflict if the name is
// in use.
func (db *DB) UpdateTrigger(ctx context.Context, t *agented.Trigger, by string) error {
	spec, err := json.Marshal(t.Spec)
	if err != nil {
		return fmt.Errorf("update trigger: %w", err)
	}
	return db.writeRules(ctx, "update trigger", func(tx *tx) error {
		if err := tx.checkSecretRefs(t.Spec.SecretRefs()); err != nil {
			return err
		}
		if err := tx.checkNotify(t.Spec.Notify); err != nil {
			return err
		}
		old, err := tx.triggerBefore(t.ID)
		if err != nil {
			return err
		}
		fields := changedTrigger(old, t)
		now := stored(time.Now())
		err = tx.row(`UPDATE trigger_ SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END, enabled = $4, spec = $5, updated_at = $6
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
		if err := deadman.Set(tx, t, now); err != nil {
			return err
		}
		if err := tx.setMessageRules(t); err != nil {
			return err
		}
		if err := tx.setWebhooks(t); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "trigger.update", Subject: string(t.ID), Detail: t.Name + changedText(fields)})
	})
}

// SettingSandboxDefault is the key that records that this database was opened by a version whose
// default sandbox level is auto.
const SettingSandboxDefault = "sandbox_default"

// KeepCommandsUnsandboxed sets the sandbox level off for triggers that run commands and name no
// level, and for their open executions, so that a new default does not change what they can reach.
// It does so once per database, and returns their names.
func (db *DB) KeepCommandsUnsandboxed(ctx context.Context) (names []string, err error) {
	err = db.writeRules(ctx, "keep commands unsandboxed", func(tx *tx) error {
		names = nil
		var done int
		if err := tx.row(`SELECT count(*) FROM setting WHERE key = $1`, SettingSandboxDefault).Scan(&done); err != nil || done > 0 {
			return err
		}
		rows, err := tx.query(`SELECT id, name, spec FROM trigger_ ORDER BY id`)
		list, err := collect(rows, err, func(v *storedSpec, scan func(...any) error) error { return scan(&v.id, &v.name, &v.spec) })
		if err != nil {
			return err
		}
		for _, v := range list {
			spec, changed, err := unsandboxed(v.spec, true)
			if err != nil || !changed {
				if err != nil {
					return err
				}
				continue
			}
			names = append(names, v.name)
			if err := tx.exec(`UPDATE trigger_ SET spec = $2 WHERE id = $1`, v.id, spec); err != nil {
				return err
			}
			if err := tx.audit(AuditEntry{Actor: "upgrade", Action: "trigger.update", Subject: v.id, Detail: v.name + changedText([]string{"sandbox"})}); err != nil {
				return err
			}
		}
		if err := tx.keepSnapshotsUnsandboxed(); err != nil {
			return err
		}
		return tx.exec(`INSERT INTO setting (key, value) VALUES ($1, 'auto')`, SettingSandboxDefault)
	})
	slices.Sort(names)
	return names, err
}

// storedSpec is a row with a spec as JSON.
type storedSpec struct{ id, name, spec string }

func (tx *tx) keepSnapshotsUnsandboxed() error {
	rows, err := tx.query(`SELECT e.id, t.snapshot FROM execution e JOIN execution_text t ON t.execution_id = e.id
		WHERE e.status IN ('pending', 'running') AND e.backend = 'command' ORDER BY e.id`)
	list, err := collect(rows, err, func(v *storedSpec, scan func(...any) error) error { return scan(&v.id, &v.spec) })
	if err != nil {
		return err
	}
	for _, v := range list {
		spec, changed, err := unsandboxed(v.spec, false)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		if err := tx.exec(`UPDATE execution_text SET snapshot = $2 WHERE execution_id = $1`, v.id, spec); err != nil {
			return err
		}
	}
	return nil
}

// unsandboxed sets the sandbox level off in the JSON of a spec that has none. With
// onlyCommands, a spec with another backend or with an agent is unchanged. Other
// members keep their values.
func unsandboxed(text string, onlyCommands bool) (out string, changed bool, err error) {
	var members map[string]json.RawMessage
	var spec struct{ Backend, Sandbox, Agent string }
	if err := errors.Join(json.Unmarshal([]byte(text), &members), json.Unmarshal([]byte(text), &spec)); err != nil {
		return "", false, err
	}
	if spec.Sandbox != "" || onlyCommands && (spec.Backend != string(agented.BackendCommand) || spec.Agent != "") {
		return text, false, nil
	}
	members["sandbox"] = json.RawMessage(`"off"`)
	b, err := json.Marshal(members)
	return string(b), true, err
}

// triggerBefore returns the stored trigger, for the audit log.
func (tx *tx) triggerBefore(id agented.TriggerID) (*agented.Trigger, error) {
	list := make([]agented.Trigger, 1)
	err := scanTrigger(&list[0], tx.row(`SELECT `+triggerColumns+` FROM trigger_ WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noTrigger(id)
	}
	if err != nil {
		return nil, err
	}
	return &list[0], fillTriggers(tx, list)
}

// changedTrigger returns the names of the fields in which two triggers differ.
func changedTrigger(old, now *agented.Trigger) []string {
	fields := changedFields(old.Spec, now.Spec)
	for _, f := range []struct {
		name    string
		changed bool
	}{
		{"name", old.Name != now.Name},
		{"enabled", old.Enabled != now.Enabled},
		{"schedules", !slices.EqualFunc(old.Schedules, now.Schedules, agented.Schedule.Same)},
		{"messages", !reflect.DeepEqual(old.Messages, now.Messages) && len(old.Messages)+len(now.Messages) > 0},
		{"webhooks", !slices.EqualFunc(old.Webhooks, now.Webhooks, sameWebhook)},
	} {
		if f.changed {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// sameWebhook reports whether two webhooks are equivalent, ignoring their ids.
func sameWebhook(a, b agented.Webhook) bool {
	a.ID = b.ID
	return reflect.DeepEqual(a, b)
}

// DeleteTrigger deletes the trigger and cancels its pending executions. Running
// ones continue, and the history remains.
func (db *DB) DeleteTrigger(ctx context.Context, id agented.TriggerID, by string) error {
	return db.writeRules(ctx, "delete trigger", func(tx *tx) error {
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
	return db.oneTrigger(ctx, `id = $1`, []any{string(id)}, noTrigger(id))
}

// oneTrigger returns the trigger that matches the condition, or unknown.
func (db *DB) oneTrigger(ctx context.Context, cond string, args []any, unknown error) (*agented.Trigger, error) {
	list := make([]agented.Trigger, 1)
	err := db.read(ctx, "trigger", func(r *reader) error {
		err := scanTrigger(&list[0], r.row(`SELECT `+triggerColumns+` FROM trigger_ WHERE `+cond, args...).Scan)
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

// fillTriggers loads the data of triggers from other tables.
func fillTriggers(q querier, list []agented.Trigger) error {
	if err := loadSchedules(q, list); err != nil {
		return err
	}
	if err := loadMessageRules(q, list); err != nil {
		return err
	}
	return loadWebhooks(q, list)
}

// TriggerByName returns the trigger with that name, ignoring case, or NotFound.
func (db *DB) TriggerByName(ctx context.Context, name string) (*agented.Trigger, error) {
	return db.oneTrigger(ctx, byName, nameKeys(name), agented.Errorf(agented.NotFound, "no trigger named %q", name))
}

// Triggers returns a page of triggers by name, and the cursor of the next page,
// empty if there is none.
func (db *DB) Triggers(ctx context.Context, f TriggerFilter, p Page) ([]agented.Trigger, string, error) {
	var w where
	after, err := pageKey(p, "trigger", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.And(`name_key > $?`, after[0])
	}
	if f.Enabled != nil {
		w.And(`enabled = $?`, *f.Enabled)
	}
	if f.Query != "" {
		w.And(`name_key LIKE $? ESCAPE '\'`, containing(fold(f.Query)))
	}
	if len(f.Only) > 0 {
		w.And(`id IN ` + in(&w, f.Only))
	}
	limit := p.Size()
	var list []agented.Trigger
	err = db.read(ctx, "triggers", func(r *reader) error {
		rows, err := r.query(`SELECT `+triggerColumns+` FROM trigger_`+w.SQL()+` ORDER BY name_key LIMIT `+fmt.Sprint(limit+1), w.Args()...)
		if list, err = collect(rows, err, scanTrigger); err != nil {
			return err
		}
		return fillTriggers(r, list)
	})
	if err != nil {
		return nil, "", err
	}
	return cut(p, list, "trigger", func(last *agented.Trigger) []string { return []string{fold(last.Name)} })
}

// AppliedSet is a table of objects that can be created from files.
type AppliedSet string

// The tables with sets.
const (
	AppliedTriggers AppliedSet = "trigger_"
	AppliedAgents   AppliedSet = "agent"
)

// NoteApplied records the set of files that the object with this id was created
// from.
func (db *DB) NoteApplied(ctx context.Context, of AppliedSet, id, set string) error {
	return db.write(ctx, "record applied set", func(tx *tx) error {
		return tx.exec(`UPDATE `+string(of)+` SET applied_set = $2 WHERE id = $1`, id, set)
	})
}

// Named is the id and the name of an object.
type Named struct{ ID, Name string }

// InSet returns the objects that were created from a set of files, by name.
func (db *DB) InSet(ctx context.Context, of AppliedSet, set string) ([]Named, error) {
	if set == "" {
		return nil, agented.Errorf(agented.Invalid, "the set has no name")
	}
	var out []Named
	err := db.read(ctx, "list applied set", func(r *reader) error {
		rows, err := r.query(`SELECT id, name FROM `+string(of)+` WHERE applied_set = $1 ORDER BY name_key`, set)
		if err != nil {
			return err
		}
		defer rows.Close()
		out = nil
		for rows.Next() {
			var n Named
			if err := rows.Scan(&n.ID, &n.Name); err != nil {
				return err
			}
			out = append(out, n)
		}
		return rows.Err()
	})
	return out, err
}
