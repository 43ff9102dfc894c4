package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// Key is an API key without the key itself, which is stored nowhere.
type Key struct {
	ID        agented.KeyID
	Name      string // unique among those that are not revoked, ignoring case
	Prefix    string // the start of the key, by which people tell it
	Role      agented.Role
	CreatedBy string
	CreatedAt time.Time
	UsedAt    time.Time // last use, to the minute; zero: never
	RevokedAt time.Time // zero: it is good
}

const keyColumns = `id, name, prefix, role, created_by, created_at, used_at, revoked_at`

func scanKey(k *Key, scan func(...any) error) error {
	return scan(&k.ID, &k.Name, &k.Prefix, &k.Role, &k.CreatedBy, toTime{&k.CreatedAt}, toTime{&k.UsedAt}, toTime{&k.RevokedAt})
}

// CreateKey stores a key under its hash. Empty ID and CreatedAt are filled in.
// A name that another good key has is a Conflict.
func (db *DB) CreateKey(ctx context.Context, k *Key, hash []byte, by string) error {
	if k.CreatedAt.IsZero() {
		k.CreatedAt = time.Now()
	}
	k.CreatedAt, k.CreatedBy = stored(k.CreatedAt), by
	if k.ID == "" {
		k.ID = agented.KeyID(agented.NewID("key", k.CreatedAt))
	}
	return db.write(ctx, "create key", func(tx *tx) error {
		err := tx.exec(`INSERT INTO api_key (id, name, name_key, hash, prefix, role, created_by, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			k.ID, k.Name, fold(k.Name), hex.EncodeToString(hash), k.Prefix, k.Role, by, micros(k.CreatedAt))
		if duplicate(err) {
			return nameTaken("key", k.Name, err)
		}
		if err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "key.create", Subject: string(k.ID), Detail: fmt.Sprintf("%s, %s", k.Name, k.Role)})
	})
}

// KeyByHash returns the key, or Unauthenticated when there is none that is
// good.
func (db *DB) KeyByHash(ctx context.Context, hash []byte) (*Key, error) {
	var k Key
	err := scanKey(&k, db.hotRow(ctx, `SELECT `+keyColumns+` FROM api_key WHERE hash = $1 AND revoked_at IS NULL`,
		hex.EncodeToString(hash)).Scan)
	if missing(err) {
		return nil, agented.Errorf(agented.Unauthenticated, "the API key is not known, or was revoked")
	}
	if err != nil {
		return nil, db.explain("key", err)
	}
	return &k, nil
}

// TouchKey notes a use of k. It writes at most once a minute.
func (db *DB) TouchKey(ctx context.Context, k *Key, now time.Time) error {
	if now.Sub(k.UsedAt) < touchEvery {
		return nil
	}
	return db.write(ctx, "touch key", func(tx *tx) error {
		return tx.exec(`UPDATE api_key SET used_at = $2 WHERE id = $1 AND (used_at IS NULL OR used_at < $2)`, k.ID, micros(now))
	})
}

// Keys returns a page of keys, the newest first, revoked ones too.
func (db *DB) Keys(ctx context.Context, p Page) ([]Key, string, error) {
	var w where
	after, err := p.after("key", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.and(`id < $?`, after[0])
	}
	limit := p.limit()
	rows, err := db.r.QueryContext(ctx, `SELECT `+keyColumns+` FROM api_key`+w.sql()+` ORDER BY id DESC LIMIT `+fmt.Sprint(limit+1), w.args...)
	list, err := collect(rows, err, scanKey)
	if err != nil {
		return nil, "", db.explain("keys", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("key", string(list[limit-1].ID)), nil
}

// RevokeKey makes a key useless for good. NotFound when there is none, Conflict
// when it is revoked already.
func (db *DB) RevokeKey(ctx context.Context, id agented.KeyID, by string, now time.Time) error {
	return db.write(ctx, "revoke key", func(tx *tx) error {
		var name string
		var revoked time.Time
		err := tx.row(`SELECT name, revoked_at FROM api_key WHERE id = $1`, id).Scan(&name, toTime{&revoked})
		switch {
		case missing(err):
			return agented.Errorf(agented.NotFound, "no key %q", id)
		case err != nil:
			return err
		case !revoked.IsZero():
			return agented.Errorf(agented.Conflict, "key %q is revoked already", name)
		}
		if err := tx.exec(`UPDATE api_key SET revoked_at = $2 WHERE id = $1`, id, micros(now)); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "key.revoke", Subject: string(id), Detail: name})
	})
}
