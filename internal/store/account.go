package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/policy"
)

const accountColumns = `id, backend, name, is_default, enabled, place, max_concurrent, config, credentials,
	state, until, evidence, cause, consecutive_limits, probe <> '', probed_at,
	(SELECT COUNT(*) FROM execution e WHERE e.account_id = account.id), used_at, created_at, updated_at,
	checked_at, check_works, check_reason, check_execution`

func scanAccount(a *agented.Account, scan func(...any) error) error {
	var credentials []byte
	err := scan(&a.ID, &a.Backend, &a.Name, &a.Default, &a.Enabled, &a.Order, &a.MaxConcurrent, &a.Config, &credentials,
		&a.State, toTime{&a.Until}, &a.Evidence, &a.Cause, &a.ConsecutiveLimits, &a.Probing, toTime{&a.ProbedAt},
		&a.Running, toTime{&a.UsedAt}, toTime{&a.CreatedAt}, toTime{&a.UpdatedAt},
		toTime{&a.Used.At}, &a.Used.Works, &a.Used.Reason, &a.Used.Execution)
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

// CreateAccount stores a new account and wakes the executions that wait for
// one. It fills in an empty ID and empty times. It returns Conflict if the name
// is in use. by is the actor for the audit log.
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
		if err := tx.checkSecretRefs(a.SecretRefs()); err != nil {
			return err
		}
		err := tx.execNow(`INSERT INTO account (id, backend, name, name_key, enabled, place, max_concurrent, config, credentials, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)`,
			a.ID, a.Backend, a.Name, fold(a.Name), a.Enabled, a.Order, a.MaxConcurrent, a.Config, credentials, micros(a.CreatedAt))
		if duplicate(err) {
			return nameTaken(a.Backend+" account", a.Name, err)
		}
		if err != nil {
			return err
		}
		if err := tx.wakeAccountQueues(a.CreatedAt); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "account.create", Subject: string(a.ID), Detail: a.Label()})
	})
}

// UpdateAccount replaces the settings of an account: all fields except id,
// backend, state and times. New credentials, another folder and enabling make
// it ready; earlier credentials stay known while attempts may still use them.
// It returns NotFound if the account does not exist, and Conflict if the name
// is in use.
func (db *DB) UpdateAccount(ctx context.Context, a *agented.Account, by string) error {
	credentials, err := credentialsText(a.Credentials)
	if err != nil {
		return fmt.Errorf("update account: %w", err)
	}
	return db.write(ctx, "update account", func(tx *tx) error {
		if err := tx.checkSecretRefs(a.SecretRefs()); err != nil {
			return err
		}
		now := stored(time.Now())
		old, err := tx.account(a.ID)
		if err != nil {
			return err
		}
		was, err := credentialsText(old.Credentials)
		if err != nil {
			return err
		}
		err = tx.execNow(`UPDATE account SET name = $2, name_key = $3, enabled = $4, place = $5, max_concurrent = $6, config = $7,
				previous_credentials = CASE WHEN credentials = $8 THEN previous_credentials ELSE credentials END, credentials = $8, updated_at = $9
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
		if err := tx.wakeAccountQueues(now); err != nil {
			return err
		}
		changed, err := tx.account(a.ID)
		if err != nil {
			return err
		}
		*a = *changed
		var fields []string
		for _, f := range []struct {
			name    string
			changed bool
		}{
			{"name", old.Name != a.Name},
			{"enabled", old.Enabled != a.Enabled},
			{"order", old.Order != a.Order},
			{"max_concurrent", old.MaxConcurrent != a.MaxConcurrent},
			{"config", old.Config != a.Config},
			{"credentials", was != credentials},
		} {
			if f.changed {
				fields = append(fields, f.name)
			}
		}
		return tx.audit(AuditEntry{Actor: by, Action: "account.update", Subject: string(a.ID), Detail: a.Label() + changedText(fields)})
	})
}

// ResetAccount makes an account ready and wakes waiting executions.
func (db *DB) ResetAccount(ctx context.Context, id agented.AccountID, by string, now time.Time) (*agented.Account, error) {
	var a *agented.Account
	err := db.write(ctx, "reset account", func(tx *tx) (err error) {
		if a, err = tx.account(id); err != nil {
			return err
		}
		if err := tx.makeReady(id); err != nil {
			return err
		}
		// Resetting an account also ends the cooldown of its provider.
		if err := tx.exec(`DELETE FROM backend_cooldown WHERE backend = $1`, a.Backend); err != nil {
			return err
		}
		if err := tx.wakeAccountQueues(now); err != nil {
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
	return tx.exec(`UPDATE account SET state = 'ready', until = NULL, evidence = '', cause = '', consecutive_limits = 0, probe = '',
		checked_at = NULL, check_works = FALSE, check_reason = '', check_execution = '' WHERE id = $1`, id)
}

// DeleteAccount deletes an account. Default accounts and accounts in use return
// Conflict.
func (db *DB) DeleteAccount(ctx context.Context, id agented.AccountID, by string) error {
	return db.write(ctx, "delete account", func(tx *tx) error {
		a, err := tx.account(id)
		switch {
		case err != nil:
			return err
		case a.Default:
			return agented.Errorf(agented.Conflict, "account %s is defined by the server's environment: disable it instead", a.Label())
		case a.Running > 0:
			return agented.Errorf(agented.Conflict, "account %s is in use: disable it, and delete it when its executions have ended", a.Label())
		}
		if err := tx.exec(`DELETE FROM account WHERE id = $1`, id); err != nil {
			return err
		}
		if err := tx.wakeAccountQueues(stored(time.Now())); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "account.delete", Subject: string(id), Detail: a.Label()})
	})
}

// Account returns one account, or NotFound.
func (db *DB) Account(ctx context.Context, id agented.AccountID) (*agented.Account, error) {
	var a agented.Account
	err := scanAccount(&a, db.row(ctx, `SELECT `+accountColumns+` FROM account WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noAccount(id)
	}
	if err == nil {
		db.inspect(&a)
	}
	return &a, explain("account", err)
}

// CheckAccounts sets the function that reports problems of an account. One that
// cannot work at all needs a login. Call it before the database is used.
func (db *DB) CheckAccounts(check func(*agented.Account) agented.AccountProblem) {
	db.check = check
}

// inspect adds the result of the check to an account.
func (db *DB) inspect(a *agented.Account) {
	if db.check == nil || a.State != agented.AccountReady {
		return
	}
	p := db.check(a)
	if a.Hint, a.Fix, a.NotInstalled = p.Hint, p.Fix, p.NotInstalled; p.Gone {
		a.State, a.Evidence = agented.AccountNeedsLogin, p.Hint
	}
}

// FormerCredentials returns the earlier credentials of an account, which
// attempts that began with them must not print.
func (db *DB) FormerCredentials(ctx context.Context, id agented.AccountID) (map[string]string, error) {
	var text []byte
	err := db.row(ctx, `SELECT previous_credentials FROM account WHERE id = $1`, id).Scan(&text)
	if missing(err) || err == nil && len(text) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, explain("former credentials", err)
	}
	var out map[string]string
	return out, json.Unmarshal(text, &out)
}

// Accounts returns all accounts, by backend and in order of preference.
func (db *DB) Accounts(ctx context.Context) ([]agented.Account, error) {
	var list []agented.Account
	err := db.read(ctx, "accounts", func(r *reader) (err error) {
		list, err = accounts(r)
		for i := range list {
			db.inspect(&list[i])
		}
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

// SetDefaultAccount records where the CLI of a backend's default account keeps
// login and sessions, according to the server's environment.
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

// The kinds of cooldown of a whole backend.
const (
	cooldownProvider = "provider" // overload and circuit breaker
	cooldownAddress  = "address"  // a throttle that affects several accounts
)

// BackendCooldown is a cooldown of a backend.
type BackendCooldown struct {
	Backend  string
	Kind     string
	Failures int
	policy.Cooldown
	probe agented.ExecutionID
}

const cooldownColumns = `backend, kind, failures, until, reason, probe`

func scanCooldown(r *BackendCooldown, scan func(...any) error) error {
	err := scan(&r.Backend, &r.Kind, &r.Failures, toTime{&r.Until}, &r.Reason, &r.probe)
	r.Probing = r.probe != ""
	return err
}

// BackendCooldowns returns the active cooldowns of backends.
func (db *DB) BackendCooldowns(ctx context.Context) ([]BackendCooldown, error) {
	rows, err := db.query(ctx, `SELECT `+cooldownColumns+` FROM backend_cooldown WHERE until IS NOT NULL ORDER BY backend, kind`)
	list, err := collect(rows, err, scanCooldown)
	return list, explain("backend cooldowns", err)
}

// loadCandidates reads the input for the selection of an account.
func (tx *tx) loadCandidates(now time.Time) (policy.Candidates, error) {
	s := policy.Candidates{Now: now, Backends: map[string]policy.Cooldown{}}
	var err error
	if s.Accounts, err = accounts(tx); err != nil {
		return s, err
	}
	for i := range s.Accounts {
		tx.db.inspect(&s.Accounts[i])
	}
	hard, err := tx.hardBudgets(now)
	if err != nil {
		return s, err
	}
	policy.CoolOverBudget(s.Accounts, hard)
	rows, err := tx.query(`SELECT ` + cooldownColumns + ` FROM backend_cooldown WHERE until IS NOT NULL`)
	cooldowns, err := collect(rows, err, scanCooldown)
	for _, r := range cooldowns {
		if was, there := s.Backends[r.Backend]; !there || r.Until.After(was.Until) {
			s.Backends[r.Backend] = r.Cooldown
		}
	}
	return s, err
}

// recordUse records that an attempt of the execution starts with the selected
// account.
func (tx *tx) recordUse(id agented.ExecutionID, s policy.Selection, now time.Time) error {
	a := s.Account
	trust := micros(now.Add(policy.ProbeTrust))
	var err error
	switch policy.UseOf(s, now) {
	case policy.UseProbe:
		err = tx.exec(`UPDATE account SET used_at = $2, probe = $3, probed_at = $2, until = $4 WHERE id = $1`, a.ID, micros(now), id, trust)
	case policy.UseConfirmed:
		err = tx.exec(`UPDATE account SET used_at = $2, state = 'ready', until = NULL, evidence = '', cause = '', probe = '' WHERE id = $1`, a.ID, micros(now))
	default:
		err = tx.exec(`UPDATE account SET used_at = $2 WHERE id = $1`, a.ID, micros(now))
	}
	if err != nil {
		return err
	}
	if s.BackendProbe {
		return tx.exec(`UPDATE backend_cooldown SET probe = $2, until = $3, reason = 'waits for the attempt that finds out whether ' || backend || ' can be reached again'
			WHERE backend = $1 AND until IS NOT NULL`, a.Backend, id, trust)
	}
	return tx.exec(`UPDATE backend_cooldown SET until = NULL, probe = '', reason = '' WHERE backend = $1 AND until <= $2`, a.Backend, micros(now))
}
