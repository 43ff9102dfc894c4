package store

import (
	"context"
	"strings"

	"github.com/agented/agented/internal/naming"
)

// fold returns the key under which a name is unique.
func fold(name string) string { return naming.Key(name) }

// byName selects by name. Two old rows can have the same name in two Unicode
// normalisations: then the one spelled like $2 comes first.
const byName = `name_key IN ($1, $2) ORDER BY CASE WHEN name_key = $2 THEN 0 ELSE 1 END LIMIT 1`

// nameKeys returns the arguments of byName.
func nameKeys(name string) []any { return []any{fold(name), strings.ToLower(name)} }

// refoldNames normalises keys that an earlier version stored without Unicode
// composition. A row keeps its key if another row has the normalised one: both
// remain usable. The history of executions keeps its keys too.
func (db *DB) refoldNames(ctx context.Context) error {
	for _, table := range []string{"trigger_", "user_", "api_key", "budget"} {
		if err := db.refold(ctx, table); err != nil {
			return explain("normalise the names in "+table, err)
		}
	}
	return nil
}

func (db *DB) refold(ctx context.Context, table string) error {
	type row struct{ id, name, key string }
	rows, err := db.query(ctx, `SELECT id, name, name_key FROM `+table+` WHERE OCTET_LENGTH(name_key) <> LENGTH(name_key)`)
	list, err := collect(rows, err, func(r *row, scan func(...any) error) error { return scan(&r.id, &r.name, &r.key) })
	if err != nil {
		return err
	}
	for _, r := range list {
		key := fold(r.name)
		if key == r.key {
			continue
		}
		err := db.write(ctx, r.id, func(tx *tx) error {
			return tx.exec(`UPDATE `+table+` SET name_key = $2 WHERE id = $1`, r.id, key)
		})
		if err != nil && !duplicate(err) {
			return err
		}
	}
	return nil
}
