package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/agented/agented"
)

// Key is an API key without the key itself, which is not stored.
type Key struct {
	ID        agented.KeyID
	Name      string // unique among valid keys, ignoring case
	Prefix    string // the start of the key, to identify it
	Role      agented.Role
	Owner     agented.UserID // user who created it, with whom it ends; empty: none
	CreatedBy string
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	UsedAt    time.Time // last use, to the minute; zero: never
	RevokedAt time.Time // zero: it is valid

	Triggers  []agented.TriggerID // it reaches these only; empty: all
	Addresses []netip.Prefix      // it is valid from these only; empty: from everywhere
}

// MaxKeyTriggers and MaxKeyAddresses limit the lists of a key.
const (
	MaxKeyTriggers  = 50
	MaxKeyAddresses = 50
)

// toJSON scans a column with a JSON array, or with nothing.
type toJSON struct{ to any }

// Scan implements sql.Scanner.
func (j toJSON) Scan(value any) error {
	switch v := value.(type) {
	case string:
		if v == "" {
			return nil
		}
		return json.Unmarshal([]byte(v), j.to)
	case []byte:
		return j.Scan(string(v))
	}
	return fmt.Errorf("a list is stored as %T", value)
}

// asJSON returns the text of a list for its column, "" for an empty one.
func asJSON[T any](list []T) string {
	if len(list) == 0 {
		return ""
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // texts can be marshalled
	}
	return string(b)
}

const keyColumns = `id, name, prefix, role, created_by, created_at, used_at, revoked_at, owner, expires_at, triggers, addresses`

func scanKey(k *Key, scan func(...any) error) error {
	return scan(&k.ID, &k.Name, &k.Prefix, &k.Role, &k.CreatedBy, toTime{&k.CreatedAt}, toTime{&k.UsedAt}, toTime{&k.RevokedAt},
		&k.Owner, toTime{&k.ExpiresAt}, toJSON{&k.Triggers}, toJSON{&k.Addresses})
}

// CreateKey stores a key with its hash. It fills in an empty ID and CreatedAt.
// It returns Conflict if another valid key has the name.
func (db *DB) CreateKey(ctx context.Context, k *Key, hash []byte, by string) error {
	if k.CreatedAt.IsZero() {
		k.CreatedAt = time.Now()
	}
	k.CreatedAt, k.CreatedBy = stored(k.CreatedAt), by
	if k.ID == "" {
		k.ID = agented.KeyID(agented.NewID("key", k.CreatedAt))
	}
	return db.write(ctx, "create key", func(tx *tx) error {
		var expires any
		if !k.ExpiresAt.IsZero() {
			expires = micros(k.ExpiresAt)
		}
		err := tx.execNow(`INSERT INTO api_key (id, name, name_key, hash, prefix, role, created_by, created_at, owner, expires_at, triggers, addresses)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			k.ID, k.Name, fold(k.Name), hex.EncodeToString(hash), k.Prefix, k.Role, by, micros(k.CreatedAt), k.Owner, expires, asJSON(k.Triggers), asJSON(k.Addresses))
		if duplicate(err) {
			return nameTaken("key", k.Name, err)
		}
		if err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "key.create", Subject: string(k.ID), Detail: k.describe()})
	})
}

// describe describes the key for the audit log.
func (k *Key) describe() string {
	text := k.Name + ", " + string(k.Role)
	for i, id := range k.Triggers {
		if i == 0 {
			text += "; triggers"
		}
		text += " " + string(id)
	}
	for i, network := range k.Addresses {
		if i == 0 {
			text += "; addresses"
		}
		text += " " + network.String()
	}
	return text
}

// KeyByHash returns the key, or Unauthenticated if there is no valid one. A key
// has at most the current role of its owner. The caller compares ExpiresAt.
func (db *DB) KeyByHash(ctx context.Context, hash []byte) (*Key, error) {
	var k Key
	var owner agented.Role
	err := db.rowPrepared(ctx, `SELECT k.id, k.name, k.prefix, k.role, k.created_by, k.created_at, k.used_at, k.revoked_at, k.owner, k.expires_at,
			k.triggers, k.addresses, COALESCE(u.role, '')
		FROM api_key k LEFT JOIN user_ u ON u.id = k.owner
		WHERE k.hash = $1 AND k.revoked_at IS NULL AND (k.owner = '' OR u.id IS NOT NULL AND NOT u.disabled)`,
		hex.EncodeToString(hash)).Scan(&k.ID, &k.Name, &k.Prefix, &k.Role, &k.CreatedBy, toTime{&k.CreatedAt}, toTime{&k.UsedAt},
		toTime{&k.RevokedAt}, &k.Owner, toTime{&k.ExpiresAt}, toJSON{&k.Triggers}, toJSON{&k.Addresses}, &owner)
	if err == nil && k.Owner != "" && !owner.Allows(k.Role) {
		k.Role = owner
	}
	if missing(err) {
		return nil, agented.Errorf(agented.Unauthenticated, "the API key is unknown or was revoked: create another one")
	}
	if err != nil {
		return nil, explain("key", err)
	}
	return &k, nil
}

// TouchKey records a use of k. It writes at most once a minute.
func (db *DB) TouchKey(ctx context.Context, k *Key, now time.Time) error {
	if now.Sub(k.UsedAt) < touchEvery {
		return nil
	}
	return db.write(ctx, "touch key", func(tx *tx) error {
		return tx.exec(`UPDATE api_key SET used_at = $2 WHERE id = $1 AND (used_at IS NULL OR used_at < $2)`, k.ID, micros(now))
	})
}

// Keys returns a page of keys, newest first, including revoked ones.
func (db *DB) Keys(ctx context.Context, p Page) ([]Key, string, error) {
	var w where
	after, err := pageKey(p, "key", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.And(`id < $?`, after[0])
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT `+keyColumns+` FROM api_key`+w.SQL()+` ORDER BY id DESC LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, scanKey)
	if err != nil {
		return nil, "", explain("keys", err)
	}
	return cut(p, list, "key", func(last *Key) []string { return []string{string(last.ID)} })
}

// RevokeKey revokes a key permanently. It returns NotFound if there is none,
// and Conflict if it is already revoked.
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
			return agented.Errorf(agented.Conflict, "key %q is already revoked", name)
		}
		if err := tx.exec(`UPDATE api_key SET revoked_at = $2 WHERE id = $1`, id, micros(now)); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "key.revoke", Subject: string(id), Detail: name})
	})
}

// revokeKeysOf revokes the keys of a user who is disabled or deleted.
func (tx *tx) revokeKeysOf(user agented.UserID, by, why string) error {
	rows, err := tx.query(`UPDATE api_key SET revoked_at = $2 WHERE owner = $1 AND revoked_at IS NULL RETURNING id, name`, user, micros(time.Now()))
	list, err := collect(rows, err, func(k *Key, scan func(...any) error) error { return scan(&k.ID, &k.Name) })
	if err != nil {
		return err
	}
	for _, k := range list {
		if err := tx.audit(AuditEntry{Actor: by, Action: "key.revoke", Subject: string(k.ID), Detail: k.Name + ": " + why}); err != nil {
			return err
		}
	}
	return nil
}
