package store

import (
	"context"

	"github.com/agented/agented"
)

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
