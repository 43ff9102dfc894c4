package store

import (
	"context"

	"github.com/agented/agented"
)

// Setting returns the value of a setting, or NotFound.
func (db *DB) Setting(ctx context.Context, key string) (string, error) {
	var v string
	err := db.r.QueryRowContext(ctx, `SELECT value FROM setting WHERE key = $1`, key).Scan(&v)
	if missing(err) {
		return "", agented.Errorf(agented.NotFound, "no setting %q", key)
	}
	return v, db.explain("setting", err)
}

// SetSetting sets a setting.
func (db *DB) SetSetting(ctx context.Context, key, value string) error {
	return db.write(ctx, "set setting", func(tx *tx) error {
		return tx.exec(`INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
	})
}
