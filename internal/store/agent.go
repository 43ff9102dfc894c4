package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
)

const agentColumns = `id, name, role, goals, enabled, spec, created_at, updated_at`

func scanAgent(a *agented.Agent, scan func(...any) error) error {
	var spec []byte
	if err := scan(&a.ID, &a.Name, &a.Role, &a.Goals, &a.Enabled, &spec, toTime{&a.CreatedAt}, toTime{&a.UpdatedAt}); err != nil {
		return err
	}
	return json.Unmarshal(spec, &a.Spec)
}

// CreateAgent stores a new agent. Empty ID and times are filled in. A taken
// name is a Conflict. by is who asks, for the audit.
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
		err := tx.exec(`INSERT INTO agent (id, name, name_key, role, goals, enabled, spec, created_at, updated_at)
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

// UpdateAgent replaces all of the agent with a.ID but its id and times, and
// sets a.UpdatedAt. NotFound when there is none, Conflict when the name is
// taken.
func (db *DB) UpdateAgent(ctx context.Context, a *agented.Agent, by string) error {
	spec, err := json.Marshal(a.Spec)
	if err != nil {
		return fmt.Errorf("update agent: %w", err)
	}
	return db.write(ctx, "update agent", func(tx *tx) error {
		err := tx.row(`UPDATE agent SET name = $2, name_key = $3, role = $4, goals = $5, enabled = $6, spec = $7, updated_at = $8
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
		return tx.audit(AuditEntry{Actor: by, Action: "agent.update", Subject: string(a.ID), Detail: a.Name})
	})
}

// DeleteAgent removes the agent, its places in groups and topics, and the rules
// that its messages fire. Its conversations and the messages that it had stay.
func (db *DB) DeleteAgent(ctx context.Context, id agented.AgentID, by string) error {
	return db.write(ctx, "delete agent", func(tx *tx) error {
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
	return agented.Errorf(agented.NotFound, "no agent %q", clip(name, 80))
}

// Agent returns the agent of that id or name, ignoring case, or NotFound.
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
	// An id is no name that could be taken: names do not come with 26 such
	// characters behind agt- but by intent, and then the id wins.
	err := scanAgent(&a, q.row(`SELECT `+agentColumns+` FROM agent WHERE id = $1 OR name_key = $2 ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END LIMIT 1`,
		idOrName, fold(idOrName)).Scan)
	if missing(err) {
		return nil, noAgent(idOrName)
	}
	return &a, err
}

// Agents returns a page of agents in the order of their names, and the cursor
// of the next page, empty when there is none.
func (db *DB) Agents(ctx context.Context, p Page) ([]agented.Agent, string, error) {
	var w where
	after, err := p.after("agent", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.and(`name_key > $?`, after[0])
	}
	limit := p.limit()
	rows, err := db.r.QueryContext(ctx, `SELECT `+agentColumns+` FROM agent`+w.sql()+` ORDER BY name_key LIMIT `+fmt.Sprint(limit+1), w.args...)
	list, err := collect(rows, err, scanAgent)
	if err != nil {
		return nil, "", db.explain("agents", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("agent", fold(list[limit-1].Name)), nil
}
