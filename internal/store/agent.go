package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

const agentColumns = `id, name, role, goals, enabled, spec, created_at, updated_at`

func scanAgent(a *agented.Agent, scan func(...any) error) error {
	var spec []byte
	if err := scan(&a.ID, &a.Name, &a.Role, &a.Goals, &a.Enabled, &spec, toTime{&a.CreatedAt}, toTime{&a.UpdatedAt}); err != nil {
		return err
	}
	return json.Unmarshal(spec, &a.Spec)
}

// CreateAgent stores a new agent. It fills in an empty ID and empty times. It
// returns Conflict if the name is in use. by is the actor for the audit log.
func (db *DB) CreateAgent(ctx context.Context, a *agented.Agent, by string) error {
	if a.CreatedAt.IsZero() {
		a.CreatedAt = time.Now()
	}
	a.CreatedAt = stored(a.CreatedAt)
	a.UpdatedAt = a.CreatedAt
	if a.ID == "" {
		a.ID = agented.AgentID(agented.NewID("agt", a.CreatedAt))
	}
	spec, err := json.Marshal(a.Spec)
	if err != nil {
		return fmt.Errorf("create agent: %w", err)
	}
	return db.write(ctx, "create agent", func(tx *tx) error {
		if err := tx.checkSecretRefs(a.Spec.SecretRefs()); err != nil {
			return err
		}
		err := tx.execNow(`INSERT INTO agent (id, name, name_key, role, goals, enabled, spec, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			a.ID, a.Name, fold(a.Name), a.Role, a.Goals, a.Enabled, string(spec), micros(a.CreatedAt), micros(a.UpdatedAt))
		if duplicate(err) {
			return nameTaken("agent", a.Name, err)
		}
		if err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "agent.create", Subject: string(a.ID), Detail: a.Name})
	})
}

// UpdateAgent replaces the agent with a.ID, except its id and times, and sets
// a.UpdatedAt. It returns NotFound if the agent does not exist, and Conflict if
// the name is in use.
func (db *DB) UpdateAgent(ctx context.Context, a *agented.Agent, by string) error {
	spec, err := json.Marshal(a.Spec)
	if err != nil {
		return fmt.Errorf("update agent: %w", err)
	}
	return db.write(ctx, "update agent", func(tx *tx) error {
		if err := tx.checkSecretRefs(a.Spec.SecretRefs()); err != nil {
			return err
		}
		var old agented.Agent
		err := scanAgent(&old, tx.row(`SELECT `+agentColumns+` FROM agent WHERE id = $1`, a.ID).Scan)
		if missing(err) {
			return noAgent(string(a.ID))
		}
		if err != nil {
			return err
		}
		fields := changedFields(old.Spec, a.Spec)
		for _, f := range []struct {
			name    string
			changed bool
		}{{"name", old.Name != a.Name}, {"role", old.Role != a.Role}, {"goals", old.Goals != a.Goals}, {"enabled", old.Enabled != a.Enabled}} {
			if f.changed {
				fields = append(fields, f.name)
			}
		}
		err = tx.row(`UPDATE agent SET name = $2, name_key = $3, role = $4, goals = $5, enabled = $6, spec = $7, updated_at = $8
			WHERE id = $1 RETURNING created_at, updated_at`,
			a.ID, a.Name, fold(a.Name), a.Role, a.Goals, a.Enabled, string(spec), micros(stored(time.Now()))).
			Scan(toTime{&a.CreatedAt}, toTime{&a.UpdatedAt})
		switch {
		case missing(err):
			return noAgent(string(a.ID))
		case duplicate(err):
			return nameTaken("agent", a.Name, err)
		case err != nil:
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "agent.update", Subject: string(a.ID), Detail: a.Name + changedText(fields)})
	})
}

// DeleteAgent deletes the agent, its memberships in groups and topics, and the
// rules for its messages. Its conversations and received messages remain.
func (db *DB) DeleteAgent(ctx context.Context, id agented.AgentID, by string) error {
	return db.writeRules(ctx, "delete agent", func(tx *tx) error {
		var name string
		err := tx.row(`DELETE FROM agent WHERE id = $1 RETURNING name`, id).Scan(&name)
		if missing(err) {
			return noAgent(string(id))
		}
		if err != nil {
			return err
		}
		owner := agented.Address{Kind: agented.ToAgent, Name: string(id)}.String()
		if err := tx.exec(`DELETE FROM member WHERE owner = $1`, owner); err != nil {
			return err
		}
		if err := tx.exec(`DELETE FROM message_rule WHERE address = $1`, owner); err != nil {
			return err
		}
		if err := tx.rulesChanged(); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "agent.delete", Subject: string(id), Detail: name})
	})
}

func noAgent(name string) error {
	return agented.Errorf(agented.NotFound, "no agent %q", format.Truncate(name, 80))
}

// Agent returns the agent with that id or name, ignoring case, or NotFound.
func (db *DB) Agent(ctx context.Context, idOrName string) (*agented.Agent, error) {
	var a *agented.Agent
	err := db.read(ctx, "agent", func(r *reader) (err error) {
		a, err = findAgent(r, idOrName)
		return err
	})
	return a, err
}

func findAgent(q querier, idOrName string) (*agented.Agent, error) {
	var a agented.Agent
	// A name has the form of an id only intentionally, and then the id takes
	// precedence.
	err := scanAgent(&a, q.row(`SELECT `+agentColumns+` FROM agent WHERE id = $1 OR name_key = $2 ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END LIMIT 1`,
		idOrName, fold(idOrName)).Scan)
	if missing(err) {
		return nil, noAgent(idOrName)
	}
	return &a, err
}

// Agents returns a page of agents by name, and the cursor of the next page,
// empty if there is none.
func (db *DB) Agents(ctx context.Context, p Page) ([]agented.Agent, string, error) {
	var w where
	after, err := pageKey(p, "agent", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.And(`name_key > $?`, after[0])
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT `+agentColumns+` FROM agent`+w.SQL()+` ORDER BY name_key LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, scanAgent)
	if err != nil {
		return nil, "", explain("agents", err)
	}
	return cut(p, list, "agent", func(last *agented.Agent) []string { return []string{fold(last.Name)} })
}
