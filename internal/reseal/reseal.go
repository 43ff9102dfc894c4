// Package reseal seals what the database stores with another SECRET_KEY.
package reseal

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/vault"
)

// batchRows is the number of rows in a transaction. Between two, the process may end: the next
// start continues.
const batchRows = 200

// Result counts what All has done.
type Result struct {
	Values int      // sealed with the new key
	Left   []string // TABLE.COLUMN of values that only the former key may open
}

// value is a sealed value: the purpose and the name that it was sealed under, and the text.
type value struct{ purpose, name, sealed string }

// place is a column with sealed values.
type place struct {
	table, column string
	key           []string // columns of the primary key
	values        func(key []string, text string) ([]value, error)
}

// places are all columns with sealed values.
var places = []place{
	{"trigger_", "spec", []string{"id"}, environment},
	{"agent", "spec", []string{"id"}, environment},
	{"execution_text", "snapshot", []string{"execution_id"}, environment},
	{"account", "credentials", []string{"id"}, credentials},
	{"account", "previous_credentials", []string{"id"}, credentials},
	{"channel", "settings", []string{"id"}, channel},
	{"webhook", "secret", []string{"id"}, func(key []string, text string) ([]value, error) {
		return []value{{secret.PurposeWebhook, key[0], text}}, nil
	}},
	{"secret_version", "sealed", []string{"secret", "number"}, func(key []string, text string) ([]value, error) {
		number, err := strconv.Atoi(key[1])
		return []value{{secret.PurposeSecret, vault.VersionName(key[0], number), text}}, err
	}},
	{"secret_use", "sealed", []string{"execution_id", "attempt", "secret"}, func(key []string, text string) ([]value, error) {
		attempt, err := strconv.Atoi(key[1])
		return []value{{secret.PurposeSecretUse, vault.UseName(agented.ExecutionID(key[0]), attempt, key[2]), text}}, err
	}},
}

// environment returns the sealed variables of a spec.
func environment(_ []string, text string) (list []value, err error) {
	var spec struct {
		Env map[string]*string `json:"env"`
	}
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		if v := spec.Env[name]; v != nil {
			list = append(list, value{secret.PurposeEnv, name, *v})
		}
	}
	return list, nil
}

// credentials returns the sealed credentials of an account.
func credentials(key []string, text string) (list []value, err error) {
	var sealed map[string]string
	if err := json.Unmarshal([]byte(text), &sealed); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(sealed)) {
		list = append(list, value{secret.PurposeAccount, auth.CredentialName(agented.AccountID(key[0]), name), sealed[name]})
	}
	return list, nil
}

// channel returns the sealed settings of a channel.
func channel(key []string, text string) (list []value, err error) {
	var settings notices.Settings
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return nil, err
	}
	sealed := settings.Sealed()
	for _, field := range slices.Sorted(maps.Keys(sealed)) {
		list = append(list, value{secret.PurposeChannel, auth.ChannelFieldName(key[0], field), *sealed[field]})
	}
	return list, nil
}

// All seals every stored value that the former key sealed with the new one, a batch of rows per
// transaction. It may end at any time and be repeated. Values that cannot be opened stay as they
// are. The former key may be removed if nothing is left.
func All(ctx context.Context, db *store.DB, former, now secret.Key) (Result, error) {
	return (&sealing{db: db, former: former, now: now, batch: batchRows, stored: func() {}}).all(ctx)
}

// sealing seals the values of a database again.
type sealing struct {
	db          *store.DB
	former, now secret.Key
	batch       int    // rows in a transaction
	stored      func() // called after each transaction
}

func (s *sealing) all(ctx context.Context) (Result, error) {
	var r Result
	if s.former.ID() == s.now.ID() {
		return r, nil
	}
	for _, p := range places {
		n, err := s.reseal(ctx, p)
		r.Values += n
		if err != nil {
			return r, fmt.Errorf("seal %s.%s with the new SECRET_KEY: %w", p.table, p.column, err)
		}
	}
	var err error
	r.Left, err = s.left(ctx)
	return r, err
}

// row is one row of a place.
type row struct {
	key  []string
	text string
}

// reseal seals the values of a place and returns their number.
func (s *sealing) reseal(ctx context.Context, p place) (total int, err error) {
	after := make([]string, len(p.key))
	for {
		rows, err := s.rows(ctx, p, after)
		if err != nil || len(rows) == 0 {
			return total, err
		}
		n := 0
		err = s.db.Update(ctx, "seal with the new key", func(tx store.Tx) error {
			n = 0
			for _, r := range rows {
				text, changed := s.sealed(p, r)
				if changed == 0 {
					continue
				}
				w := where(p.key, 3)
				args := []any{text, r.text}
				for _, k := range r.key {
					args = append(args, k)
				}
				if err := tx.Exec("UPDATE "+p.table+" SET "+p.column+" = $1 WHERE "+p.column+" = $2 AND "+w, args...); err != nil {
					return err
				}
				n += changed
			}
			return nil
		})
		if err != nil {
			return total, err
		}
		s.stored()
		total += n
		after = rows[len(rows)-1].key
	}
}

// where returns the condition that the key columns equal parameters, the first of which is number
// from.
func where(key []string, from int) string {
	parts := make([]string, len(key))
	for i, k := range key {
		parts[i] = fmt.Sprintf("%s = $%d", k, from+i)
	}
	return strings.Join(parts, " AND ")
}

// rows returns rows of a place after a key that the former key has sealed values in.
func (s *sealing) rows(ctx context.Context, p place, after []string) (list []row, err error) {
	args := []any{"%" + s.former.Marker() + "%"}
	params := make([]string, len(p.key))
	for i := range p.key {
		params[i] = fmt.Sprintf("$%d", i+2)
		args = append(args, after[i])
	}
	order := strings.Join(p.key, ", ")
	q := fmt.Sprintf("SELECT %s, %s FROM %s WHERE %s LIKE $1 AND (%s) > (%s) ORDER BY %s LIMIT %d",
		order, p.column, p.table, p.column, order, strings.Join(params, ", "), order, s.batch)
	err = s.db.View(ctx, "values of the former key", func(v store.Querier) error {
		found, err := v.Query(q, args...)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			r := row{key: make([]string, len(p.key))}
			to := make([]any, 0, len(p.key)+1)
			for i := range r.key {
				to = append(to, &r.key[i])
			}
			if err := found.Scan(append(to, &r.text)...); err != nil {
				return err
			}
			list = append(list, r)
		}
		return found.Err()
	})
	return list, err
}

// sealed returns the text of a row with its values sealed by the new key, and their number. A value
// that the former key did not seal, or that was modified, stays.
func (s *sealing) sealed(p place, r row) (text string, changed int) {
	values, err := p.values(r.key, r.text)
	if err != nil {
		return r.text, 0
	}
	text = r.text
	for _, v := range values {
		if !strings.HasPrefix(v.sealed, s.former.Marker()) {
			continue
		}
		plain, err := s.former.OpenText(v.purpose, v.name, v.sealed)
		if err != nil {
			continue
		}
		// A sealed text has a random nonce, so that it occurs once, and nothing that JSON escapes.
		text = strings.Replace(text, v.sealed, s.now.SealText(v.purpose, v.name, plain), 1)
		changed++
	}
	return text, changed
}

// left returns the columns of the whole database in which the former key has sealed values, also
// those that this package does not know: their values would be lost with the key.
func (s *sealing) left(ctx context.Context) (list []string, err error) {
	err = s.db.View(ctx, "values of the former key", func(v store.Querier) error {
		columns, err := v.Query(`SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
			WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid`)
		if err != nil {
			return err
		}
		defer columns.Close()
		var all [][2]string
		for columns.Next() {
			var c [2]string
			if err := columns.Scan(&c[0], &c[1]); err != nil {
				return err
			}
			all = append(all, c)
		}
		if err := columns.Err(); err != nil {
			return err
		}
		for _, c := range all {
			var found bool
			err := v.Row(fmt.Sprintf(`SELECT EXISTS (SELECT 1 FROM "%s" WHERE typeof("%s") = 'text' AND "%s" LIKE $1)`, c[0], c[1], c[1]), "%"+s.former.Marker()+"%").Scan(&found)
			if err != nil {
				return err
			}
			if found {
				list = append(list, c[0]+"."+c[1])
			}
		}
		return nil
	})
	return list, err
}
