package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

const secretColumns = `name, source, path, command, triggers, repositories, version, created_at, created_by, updated_at`

func scanSecret(s *agented.Secret, scan func(...any) error) error {
	var command, triggers, repositories []byte
	err := scan(&s.Name, &s.Source, &s.Path, &command, &triggers, &repositories, &s.Version, toTime{&s.CreatedAt}, &s.CreatedBy, toTime{&s.UpdatedAt})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		text []byte
		into *[]string
	}{{command, &s.Command}, {triggers, &s.Triggers}, {repositories, &s.Repositories}} {
		if err := json.Unmarshal(f.text, f.into); err != nil {
			return fmt.Errorf("secret %s: %w", s.Name, err)
		}
	}
	return nil
}

func listText(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(list) // texts only: cannot fail
	return string(b)
}

// CreateSecret stores a new secret with its first version. It returns Conflict if the name
// is in use.
func (db *DB) CreateSecret(ctx context.Context, s *agented.Secret, sealed, by string) error {
	now := stored(time.Now())
	s.Version, s.CreatedAt, s.CreatedBy, s.UpdatedAt = 1, now, by, now
	return db.write(ctx, "create secret", func(tx *tx) error {
		err := tx.execNow(`INSERT INTO secret (name, name_key, source, path, command, triggers, repositories, version, created_at, created_by, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $9)`,
			s.Name, fold(s.Name), s.Source, s.Path, listText(s.Command), listText(s.Triggers), listText(s.Repositories), s.Version, micros(now), by)
		if duplicate(err) {
			return nameTaken("secret", s.Name, err)
		}
		if err != nil {
			return err
		}
		if err := tx.addSecretVersion(s, sealed, by, now); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "secret.create", Subject: s.Name, Detail: string(s.Source)})
	})
}

// addSecretVersion stores the current version of a secret, and removes the versions that
// are no longer kept.
func (tx *tx) addSecretVersion(s *agented.Secret, sealed, by string, now time.Time) error {
	err := tx.exec(`INSERT INTO secret_version (secret, number, sealed, created_at, created_by) VALUES ($1, $2, $3, $4, $5)`,
		s.Name, s.Version, sealed, micros(now), by)
	if err == nil {
		err = tx.exec(`DELETE FROM secret_version WHERE secret = $1 AND number <= $2`, s.Name, s.Version-agented.KeptSecretVersions)
	}
	if err == nil {
		one := []agented.Secret{*s}
		err = fillSecretVersions(tx, one)
		s.Versions = one[0].Versions
	}
	return err
}

// UpdateSecret replaces source and scope of a secret. A sealed value, or a changed source,
// makes a new version: sealed is called with its number, and may be nil for a source other
// than the database. It returns NotFound if the secret does not exist.
func (db *DB) UpdateSecret(ctx context.Context, s *agented.Secret, sealed func(version int) string, by string) error {
	return db.write(ctx, "update secret", func(tx *tx) error {
		old, err := secretOf(tx, s.Name)
		if err != nil {
			return err
		}
		if !s.UpdatedAt.Equal(old.UpdatedAt) {
			return agented.Errorf(agented.Conflict, "secret %q has just been changed by another request: look at it, then try again", s.Name)
		}
		now := stored(time.Now())
		source := sealed != nil || old.Source != s.Source || old.Path != s.Path || !slices.Equal(old.Command, s.Command)
		s.Version, s.CreatedAt, s.CreatedBy, s.UpdatedAt, s.Versions = old.Version, old.CreatedAt, old.CreatedBy, now, old.Versions
		if source {
			s.Version++
		}
		err = tx.exec(`UPDATE secret SET source = $2, path = $3, command = $4, triggers = $5, repositories = $6, version = $7, updated_at = $8 WHERE name = $1`,
			s.Name, s.Source, s.Path, listText(s.Command), listText(s.Triggers), listText(s.Repositories), s.Version, micros(now))
		if err != nil {
			return err
		}
		var fields []string
		if source {
			value := ""
			if sealed != nil {
				value = sealed(s.Version)
			}
			if err := tx.addSecretVersion(s, value, by, now); err != nil {
				return err
			}
			fields = append(fields, fmt.Sprintf("value (version %d)", s.Version))
		}
		if !slices.Equal(old.Triggers, s.Triggers) {
			fields = append(fields, "triggers")
		}
		if !slices.Equal(old.Repositories, s.Repositories) {
			fields = append(fields, "repositories")
		}
		return tx.audit(AuditEntry{Actor: by, Action: "secret.update", Subject: s.Name, Detail: string(s.Source) + changedText(fields)})
	})
}

// DeleteSecret deletes a secret. One in use returns Conflict with its users.
func (db *DB) DeleteSecret(ctx context.Context, name, by string) error {
	return db.write(ctx, "delete secret", func(tx *tx) error {
		if _, err := secretOf(tx, name); err != nil {
			return err
		}
		users, err := secretUsers(tx, name)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return agented.Errorf(agented.Conflict, "secret %q is in use by %s: change them first", name, strings.Join(users, ", "))
		}
		if err := tx.exec(`DELETE FROM secret WHERE name = $1`, name); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "secret.delete", Subject: name})
	})
}

// Secret returns one secret with its versions, or NotFound. The name ignores case.
func (db *DB) Secret(ctx context.Context, name string) (*agented.Secret, error) {
	var s *agented.Secret
	err := db.read(ctx, "secret", func(r *reader) (err error) {
		s, err = secretOf(r, name)
		return err
	})
	return s, err
}

// Secrets returns all secrets with their versions, by name.
func (db *DB) Secrets(ctx context.Context) ([]agented.Secret, error) {
	var list []agented.Secret
	err := db.read(ctx, "secrets", func(r *reader) error {
		rows, err := r.query(`SELECT ` + secretColumns + ` FROM secret ORDER BY name_key`)
		if list, err = collect(rows, err, scanSecret); err != nil {
			return err
		}
		return fillSecretVersions(r, list)
	})
	return list, err
}

func secretOf(q querier, name string) (*agented.Secret, error) {
	list := make([]agented.Secret, 1)
	err := scanSecret(&list[0], q.row(`SELECT `+secretColumns+` FROM secret WHERE name_key = $1`, fold(name)).Scan)
	if missing(err) {
		return nil, noSecret(name)
	}
	if err != nil {
		return nil, err
	}
	return &list[0], fillSecretVersions(q, list)
}

func noSecret(name string) error {
	return agented.Errorf(agented.NotFound, "there is no secret %q: create it with `agented secret set %s`", name, name)
}

// fillSecretVersions loads the versions of secrets, newest first.
func fillSecretVersions(q querier, list []agented.Secret) error {
	for i := range list {
		rows, err := q.query(`SELECT number, created_at, created_by, used_at, used_by FROM secret_version WHERE secret = $1 ORDER BY number DESC`, list[i].Name)
		list[i].Versions, err = collect(rows, err, func(v *agented.SecretVersion, scan func(...any) error) error {
			return scan(&v.Number, toTime{&v.CreatedAt}, &v.CreatedBy, toTime{&v.UsedAt}, &v.UsedBy)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// SealedSecret is the sealed value of a version of a secret.
type SealedSecret struct {
	Name   string
	Number int
	Sealed string
}

func scanSealed(s *SealedSecret, scan func(...any) error) error {
	return scan(&s.Name, &s.Number, &s.Sealed)
}

// SealedSecrets returns the sealed values of all versions of the secret, or of every secret
// if name is empty, the newest first.
func (db *DB) SealedSecrets(ctx context.Context, name string) ([]SealedSecret, error) {
	rows, err := db.query(ctx, `SELECT secret, number, sealed FROM secret_version WHERE ($1 = '' OR secret = $1) AND sealed <> '' ORDER BY secret, number DESC`, name)
	list, err := collect(rows, err, scanSealed)
	return list, explain("sealed secrets", err)
}

// SecretUse is a value that an attempt received.
type SecretUse struct {
	Attempt int
	Secret  string
	Version int    // of the secret; not stored
	Sealed  string // sealed for the attempt
}

// UseSecrets records the values that an attempt receives, and with them the last use of
// their versions.
func (db *DB) UseSecrets(ctx context.Context, id agented.ExecutionID, uses []SecretUse, now time.Time) error {
	return db.write(ctx, "use secrets", func(tx *tx) error {
		for _, u := range uses {
			err := tx.exec(`INSERT INTO secret_use (execution_id, attempt, secret, sealed) VALUES ($1, $2, $3, $4)
				ON CONFLICT (execution_id, attempt, secret) DO UPDATE SET sealed = excluded.sealed`, id, u.Attempt, u.Secret, u.Sealed)
			if err == nil {
				err = tx.exec(`UPDATE secret_version SET used_at = $3, used_by = $4 WHERE secret = $1 AND number = $2`, u.Secret, u.Version, micros(now), id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// SecretUses returns the values that the attempts of an execution received. They are gone
// once its files are cleaned up after its end.
func (db *DB) SecretUses(ctx context.Context, id agented.ExecutionID) ([]SecretUse, error) {
	rows, err := db.query(ctx, `SELECT attempt, secret, sealed FROM secret_use WHERE execution_id = $1 ORDER BY attempt, secret`, id)
	list, err := collect(rows, err, func(u *SecretUse, scan func(...any) error) error { return scan(&u.Attempt, &u.Secret, &u.Sealed) })
	return list, explain("used secrets", err)
}

// checkSecretRefs rejects references to secrets that do not exist. refs maps the path of a
// field to the name of a secret.
func (tx *tx) checkSecretRefs(refs map[string]string) error {
	bad, err := missingSecrets(tx, refs)
	if err != nil {
		return err
	}
	return agented.InvalidFields(bad)
}

// CheckSecretRefs rejects references to secrets that do not exist. refs maps the path of a
// field to the name of a secret.
func (db *DB) CheckSecretRefs(ctx context.Context, refs map[string]string) error {
	if len(refs) == 0 {
		return nil
	}
	return db.read(ctx, "secrets", func(r *reader) error {
		bad, err := missingSecrets(r, refs)
		if err != nil {
			return err
		}
		return agented.InvalidFields(bad)
	})
}

func missingSecrets(q querier, refs map[string]string) (bad []agented.Field, err error) {
	for _, path := range slices.Sorted(maps.Keys(refs)) {
		var name string
		err := q.row(`SELECT name FROM secret WHERE name_key = $1`, fold(refs[path])).Scan(&name)
		switch {
		case missing(err):
			bad = append(bad, agented.Field{Path: path, Text: agented.Message(noSecret(refs[path]))})
		case err != nil:
			return nil, err
		case name != refs[path]:
			bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf("the secret is named %q: write it in this case", name)})
		}
	}
	return bad, nil
}

// SecretUsers returns what refers to the secret: triggers, agents, accounts, and executions
// that have not ended and no longer have a trigger that does.
func (db *DB) SecretUsers(ctx context.Context, name string) ([]string, error) {
	var users []string
	err := db.read(ctx, "users of a secret", func(r *reader) (err error) {
		users, err = secretUsers(r, name)
		return err
	})
	return users, err
}

func secretUsers(q querier, name string) ([]string, error) {
	ref, err := json.Marshal(agented.SecretRef(name))
	if err != nil {
		return nil, err
	}
	inWorkspace, err := json.Marshal(agented.Credential(agented.SecretRef(name)))
	if err != nil {
		return nil, err
	}
	var users []string
	for _, kind := range []struct{ label, statement string }{
		{"trigger", `SELECT name FROM trigger_ WHERE replace(spec, $1, '') <> spec OR replace(spec, $2, '') <> spec ORDER BY name_key`},
		{"agent", `SELECT name FROM agent WHERE replace(spec, $1, '') <> spec OR replace(spec, $2, '') <> spec ORDER BY name_key`},
		{"account", `SELECT backend || '/' || name FROM account WHERE replace(credentials, $1, '') <> credentials OR replace(credentials, $2, '') <> credentials ORDER BY backend, name_key`},
		{"channel", `SELECT name FROM channel WHERE replace(settings, $1, '') <> settings OR replace(settings, $2, '') <> settings ORDER BY name_key`},
		{"execution", `SELECT e.id FROM execution e JOIN execution_text t ON t.execution_id = e.id
			WHERE e.status IN ('pending', 'running') AND (replace(t.snapshot, $1, '') <> t.snapshot OR replace(t.snapshot, $2, '') <> t.snapshot) ORDER BY e.id LIMIT 20`},
	} {
		rows, err := q.query(kind.statement, string(ref), string(inWorkspace))
		list, err := collect(rows, err, func(s *string, scan func(...any) error) error { return scan(s) })
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			users = append(users, kind.label+" "+n)
		}
	}
	return users, nil
}
