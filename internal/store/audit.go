package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// AuditEntry records who did what. The store itself audits changes of triggers,
// users and keys in the same transaction.
type AuditEntry struct {
	ID      string // "aud-…"; filled in if empty
	At      time.Time
	Actor   string // user name or "key NAME"
	Action  string // noun and verb: "trigger.create", "login"
	Subject string // id of the affected object
	Detail  string // never contains a secret
	Address string // address of the client
}

// Audit adds an entry. It fills in an empty ID and a zero At.
func (db *DB) Audit(ctx context.Context, a AuditEntry) error {
	return db.write(ctx, "audit", func(tx *tx) error { return tx.audit(a) })
}

func (tx *tx) audit(a AuditEntry) error {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	if a.Address == "" {
		a.Address = addressIn(tx.Context())
	}
	if a.ID == "" {
		a.ID = agented.NewID("aud", a.At)
	}
	return tx.exec(`INSERT INTO audit (id, at, actor, action, subject, detail, address) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		a.ID, micros(a.At), a.Actor, a.Action, a.Subject, format.Truncate(a.Detail, maxSentence), a.Address)
}

// AuditLog returns a page of entries, newest first.
func (db *DB) AuditLog(ctx context.Context, p Page) ([]AuditEntry, string, error) {
	var w where
	after, err := pageKey(p, "audit", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.And(`id < $?`, after[0])
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT id, at, actor, action, subject, detail, address FROM audit`+w.SQL()+
		` ORDER BY id DESC LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, func(a *AuditEntry, scan func(...any) error) error {
		return scan(&a.ID, toTime{&a.At}, &a.Actor, &a.Action, &a.Subject, &a.Detail, &a.Address)
	})
	if err != nil {
		return nil, "", explain("audit log", err)
	}
	return cut(p, list, "audit", func(last *AuditEntry) []string { return []string{last.ID} })
}

type addressKey struct{}

// WithAddress returns a context whose audit entries contain the address of the
// client.
func WithAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

func addressIn(ctx context.Context) string {
	address, _ := ctx.Value(addressKey{}).(string)
	return address
}

// changedText formats the names of changed fields for an entry's detail.
func changedText(fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	return "; changed " + strings.Join(fields, ", ")
}

// changedFields returns the names of the fields in which two values differ as
// JSON, sorted. Variables are listed individually; values never appear. Ids of
// nested objects are not compared.
func changedFields(old, now any) []string {
	a, b := fieldsOf(old), fieldsOf(now)
	var out []string
	for name := range mergeKeys(a, b) {
		if name == "env" {
			envA, envB := fieldsOf(a[name]), fieldsOf(b[name])
			for variable := range mergeKeys(envA, envB) {
				valueA, inA := envA[variable]
				valueB, inB := envB[variable]
				if inA != inB || !bytes.Equal(valueA, valueB) {
					out = append(out, "env."+variable)
				}
			}
			continue
		}
		if !bytes.Equal(a[name], b[name]) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func mergeKeys(a, b map[string]json.RawMessage) map[string]json.RawMessage {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	maps.Copy(all, b)
	return all
}

// fieldsOf returns the top-level fields of a value's JSON; none if it is not an
// object.
func fieldsOf(v any) map[string]json.RawMessage {
	text, ok := v.(json.RawMessage)
	if !ok {
		text, _ = json.Marshal(v) // of stored values: always marshals
	}
	var out map[string]json.RawMessage
	_ = json.Unmarshal(text, &out) // null and lists have no fields
	return out
}
