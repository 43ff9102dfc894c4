package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
)

const accountColumns = `id, backend, name, is_default, enabled, place, max_concurrent, config, credentials,
	state, until, evidence, cause, strikes, probe <> '', probed_at,
	(SELECT COUNT(*) FROM execution e WHERE e.account_id = account.id), used_at, created_at, updated_at`

func scanAccount(a *agented.Account, scan func(...any) error) error {
	var credentials []byte
	err := scan(&a.ID, &a.Backend, &a.Name, &a.Default, &a.Enabled, &a.Order, &a.MaxConcurrent, &a.Config, &credentials,
		&a.State, toTime{&a.Until}, &a.Evidence, &a.Cause, &a.Strikes, &a.Probing, toTime{&a.ProbedAt},
		&a.Running, toTime{&a.UsedAt}, toTime{&a.CreatedAt}, toTime{&a.UpdatedAt})
	if err != nil || len(credentials) == 0 {
		return err
	}
	return json.Unmarshal(credentials, &a.Credentials)
}

func credentialsText(m map[string]string) (string, error) {
	if len(m) == 0 {
		return "", nil
	}
	b, err := json.Marshal(m)
	return string(b), err
}

// CreateAccount stores a new account. Empty ID and times are filled in. A taken
// name is a Conflict. What waits for an account looks again. by is who asks,
// for the audit.
func (db *DB) CreateAccount(ctx context.Context, a *agented.Account, by string) error {
	if a.CreatedAt.IsZero() {
		a.CreatedAt = time.Now()
	}
	a.CreatedAt = stored(a.CreatedAt)
	a.UpdatedAt, a.State = a.CreatedAt, agented.AccountReady
	if a.ID == "" {
		a.ID = agented.AccountID(agented.NewID("acc", a.CreatedAt))
	}
	credentials, err := credentialsText(a.Credentials)
	if err != nil {
		return fmt.Errorf("create account: %w", err)
	}
	return db.write(ctx, "create account", func(tx *tx) error {
		err := tx.exec(`INSERT INTO account (id, backend, name, name_key, enabled, place, max_concurrent, config, credentials, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)`,
			a.ID, a.Backend, a.Name, fold(a.Name), a.Enabled, a.Order, a.MaxConcurrent, a.Config, credentials, micros(a.CreatedAt))
		if duplicate(err) {
			return nameTaken(a.Backend+" account", a.Name, err)
		}
		if err != nil {
			return err
		}
		if err := tx.wakeLanes(a.CreatedAt); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "account.create", Subject: string(a.ID), Detail: a.Label()})
	})
}

// UpdateAccount replaces what a person sets of an account: all but its id, its
// backend, how it stands and its times. New credentials, another folder and
// enabling make it ready; those of before stay known while attempts may still
// have them. NotFound when there is none, Conflict when the name is taken.
func (db *DB) UpdateAccount(ctx context.Context, a *agented.Account, by string) error {
	credentials, err := credentialsText(a.Credentials)
	if err != nil {
		return fmt.Errorf("update account: %w", err)
	}
	return db.write(ctx, "update account", func(tx *tx) error {
		now := stored(time.Now())
		old, err := tx.account(a.ID)
		if err != nil {
			return err
		}
		was, err := credentialsText(old.Credentials)
		if err != nil {
			return err
		}
		err = tx.exec(`UPDATE account SET name = $2, name_key = $3, enabled = $4, place = $5, max_concurrent = $6, config = $7,
				former = CASE WHEN credentials = $8 THEN former ELSE credentials END, credentials = $8, updated_at = $9
			WHERE id = $1`,
			a.ID, a.Name, fold(a.Name), a.Enabled, a.Order, a.MaxConcurrent, a.Config, credentials, micros(now))
		if duplicate(err) {
			return nameTaken(a.Backend+" account", a.Name, err)
		}
		if err != nil {
			return err
		}
		if credentials != was || a.Config != old.Config || a.Enabled && !old.Enabled {
			if err := tx.makeReady(a.ID); err != nil {
				return err
			}
		}
		if err := tx.wakeLanes(now); err != nil {
			return err
		}
		changed, err := tx.account(a.ID)
		if err != nil {
			return err
		}
		*a = *changed
		return tx.audit(AuditEntry{Actor: by, Action: "account.update", Subject: string(a.ID), Detail: a.Label()})
	})
}

// ResetAccount makes an account ready whatever it was, and wakes what waits.
func (db *DB) ResetAccount(ctx context.Context, id agented.AccountID, by string, now time.Time) (*agented.Account, error) {
	var a *agented.Account
	err := db.write(ctx, "reset account", func(tx *tx) (err error) {
		if a, err = tx.account(id); err != nil {
			return err
		}
		if err := tx.makeReady(id); err != nil {
			return err
		}
		// Whoever says that the account is ready says so of its provider too.
		if err := tx.exec(`DELETE FROM backend_rest WHERE backend = $1`, a.Backend); err != nil {
			return err
		}
		if err := tx.wakeLanes(now); err != nil {
			return err
		}
		if a, err = tx.account(id); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "account.reset", Subject: string(id), Detail: a.Label()})
	})
	return a, err
}

func (tx *tx) makeReady(id agented.AccountID) error {
	return tx.exec(`UPDATE account SET state = 'ready', until = NULL, evidence = '', cause = '', strikes = 0, probe = '' WHERE id = $1`, id)
}

// DeleteAccount removes an account. The default ones stay, and so does one that
// is in use: Conflict.
func (db *DB) DeleteAccount(ctx context.Context, id agented.AccountID, by string) error {
	return db.write(ctx, "delete account", func(tx *tx) error {
		a, err := tx.account(id)
		switch {
		case err != nil:
			return err
		case a.Default:
			return agented.Errorf(agented.Conflict, "account %s is formed by the server's environment: disable it instead", a.Label())
		case a.Running > 0:
			return agented.Errorf(agented.Conflict, "account %s is in use: disable it, and delete it when what runs has ended", a.Label())
		}
		if err := tx.exec(`DELETE FROM account WHERE id = $1`, id); err != nil {
			return err
		}
		if err := tx.wakeLanes(stored(time.Now())); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "account.delete", Subject: string(id), Detail: a.Label()})
	})
}

// Account returns one account, or NotFound.
func (db *DB) Account(ctx context.Context, id agented.AccountID) (*agented.Account, error) {
	var a agented.Account
	err := scanAccount(&a, db.r.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM account WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noAccount(id)
	}
	return &a, db.explain("account", err)
}

// FormerCredentials are those that an account had before: an attempt that began
// with them must not print them.
func (db *DB) FormerCredentials(ctx context.Context, id agented.AccountID) (map[string]string, error) {
	var text []byte
	err := db.r.QueryRowContext(ctx, `SELECT former FROM account WHERE id = $1`, id).Scan(&text)
	if missing(err) || err == nil && len(text) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, db.explain("former credentials", err)
	}
	var out map[string]string
	return out, json.Unmarshal(text, &out)
}

// Accounts returns all accounts, by backend and in the order in which they are
// taken. There are few.
func (db *DB) Accounts(ctx context.Context) ([]agented.Account, error) {
	var list []agented.Account
	err := db.read(ctx, "accounts", func(r *reader) (err error) {
		list, err = accounts(r)
		return err
	})
	return list, err
}

func accounts(q querier) ([]agented.Account, error) {
	rows, err := q.query(`SELECT ` + accountColumns + ` FROM account ORDER BY backend, place, name_key`)
	return collect(rows, err, scanAccount)
}

func (tx *tx) account(id agented.AccountID) (*agented.Account, error) {
	var a agented.Account
	err := scanAccount(&a, tx.row(`SELECT `+accountColumns+` FROM account WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noAccount(id)
	}
	return &a, err
}

func noAccount(id agented.AccountID) error {
	return agented.Errorf(agented.NotFound, "no account %q", id)
}

// SetDefaultAccount notes what the server's environment says of a backend's
// default account: where its CLI keeps login and sessions.
func (db *DB) SetDefaultAccount(ctx context.Context, backend, config string, now time.Time) error {
	return db.write(ctx, "default account", func(tx *tx) error {
		return tx.exec(`INSERT INTO account (id, backend, name, name_key, is_default, config, created_at, updated_at)
			VALUES ($1, $2, 'default', 'default', TRUE, $3, $4, $4)
			ON CONFLICT (id) DO UPDATE SET config = excluded.config,
				created_at = CASE account.created_at WHEN 0 THEN excluded.created_at ELSE account.created_at END,
				updated_at = CASE account.updated_at WHEN 0 THEN excluded.updated_at ELSE account.updated_at END`,
			agented.DefaultAccount(backend), backend, config, micros(now))
	})
}

// The kinds of rest that a backend has for all of its accounts.
const (
	restProvider = "provider" // overload and circuit breaker
	restAddress  = "address"  // a throttle that hits several accounts
)

// BackendRest is a rest of a backend, for people.
type BackendRest struct {
	Backend  string
	Kind     string
	Failures int
	agented.Rest
	probe string
}

const restColumns = `backend, kind, failures, until, why, probe`

func scanRest(r *BackendRest, scan func(...any) error) error {
	err := scan(&r.Backend, &r.Kind, &r.Failures, toTime{&r.Until}, &r.Why, &r.probe)
	r.Probing = r.probe != ""
	return err
}

// BackendRests returns what rests at all of backends.
func (db *DB) BackendRests(ctx context.Context) ([]BackendRest, error) {
	rows, err := db.r.QueryContext(ctx, `SELECT `+restColumns+` FROM backend_rest WHERE until IS NOT NULL ORDER BY backend, kind`)
	list, err := collect(rows, err, scanRest)
	return list, db.explain("backend rests", err)
}

// scene is what a choice of an account is made from.
func (tx *tx) scene(now time.Time) (agented.Scene, error) {
	s := agented.Scene{Now: now, Backends: map[string]agented.Rest{}}
	var err error
	if s.Accounts, err = accounts(tx); err != nil {
		return s, err
	}
	if err := tx.rest(s.Accounts, now); err != nil {
		return s, err
	}
	rows, err := tx.query(`SELECT ` + restColumns + ` FROM backend_rest WHERE until IS NOT NULL`)
	rests, err := collect(rows, err, scanRest)
	for _, r := range rests {
		if was, there := s.Backends[r.Backend]; !there || r.Until.After(was.Until) {
			s.Backends[r.Backend] = r.Rest
		}
	}
	return s, err
}

// use notes that an attempt of the execution begins with what was picked.
func (tx *tx) use(id agented.ExecutionID, p agented.Picked, now time.Time) error {
	a := p.Account
	trust := micros(now.Add(agented.ProbeTrust))
	switch {
	case p.Probe:
		err := tx.exec(`UPDATE account SET used_at = $2, probe = $3, probed_at = $2, until = $4 WHERE id = $1`, a.ID, micros(now), id, trust)
		if err != nil {
			return err
		}
	case a.Probing && a.State == agented.AccountCooling && !now.Before(a.Until):
		// The probe has run for long enough: all others may go.
		err := tx.exec(`UPDATE account SET used_at = $2, state = 'ready', until = NULL, evidence = '', cause = '', probe = '' WHERE id = $1`, a.ID, micros(now))
		if err != nil {
			return err
		}
	default:
		if err := tx.exec(`UPDATE account SET used_at = $2 WHERE id = $1`, a.ID, micros(now)); err != nil {
			return err
		}
	}
	if p.Trial {
		return tx.exec(`UPDATE backend_rest SET probe = $2, until = $3, why = 'waits for the attempt that finds out whether ' || backend || ' can be reached again'
			WHERE backend = $1 AND until IS NOT NULL`, a.Backend, id, trust)
	}
	return tx.exec(`UPDATE backend_rest SET until = NULL, probe = '', why = '' WHERE backend = $1 AND until <= $2`, a.Backend, micros(now))
}
