package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// AuditEntry says who did what. Changes of triggers, users and keys are
// written by the store itself, with the change.
type AuditEntry struct {
	ID      string // "aud-…"; filled in when empty
	At      time.Time
	Actor   string // a user's name or "key NAME"
	Action  string // noun and verb: "trigger.create", "login"
	Subject string // the id that it was done to
	Detail  string // never a secret
	Address string // where the request came from
}

// Audit adds an entry. An empty ID and a zero At are filled in.
func (db *DB) Audit(ctx context.Context, a AuditEntry) error {
	return db.write(ctx, "audit", func(tx *tx) error { return tx.audit(a) })
}

func (tx *tx) audit(a AuditEntry) error {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	if a.ID == "" {
		a.ID = agented.NewID("aud", a.At)
	}
	return tx.exec(`INSERT INTO audit (id, at, actor, action, subject, detail, address) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		a.ID, micros(a.At), a.Actor, a.Action, a.Subject, clip(a.Detail, maxSentence), a.Address)
}

// AuditLog returns a page of entries, the newest first.
func (db *DB) AuditLog(ctx context.Context, p Page) ([]AuditEntry, string, error) {
	var w where
	after, err := p.after("audit", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.and(`id < $?`, after[0])
	}
	limit := p.limit()
	rows, err := db.r.QueryContext(ctx, `SELECT id, at, actor, action, subject, detail, address FROM audit`+w.sql()+
		` ORDER BY id DESC LIMIT `+fmt.Sprint(limit+1), w.args...)
	list, err := collect(rows, err, func(a *AuditEntry, scan func(...any) error) error {
		return scan(&a.ID, toTime{&a.At}, &a.Actor, &a.Action, &a.Subject, &a.Detail, &a.Address)
	})
	if err != nil {
		return nil, "", db.explain("audit log", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("audit", list[limit-1].ID), nil
}

// SweepAudit removes the entries from before a time and returns how many.
func (db *DB) SweepAudit(ctx context.Context, before time.Time) (int64, error) {
	var n int64
	err := db.write(ctx, "sweep audit", func(tx *tx) (err error) {
		n, err = tx.affected(`DELETE FROM audit WHERE at < $1`, micros(before))
		return err
	})
	return n, err
}
