package store

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/testrun/pgtest"
)

// bothSchemas tells what to do about a difference between the schemas.
const bothSchemas = `Every migration exists twice under the same name: in schema/sqlite and in schema/postgres. Write the second file:
texts are TEXT COLLATE "C", BLOB is BYTEA, WITHOUT ROWID is omitted, reserved words are no names of indexes. Add its line to
schema/checksums.txt, and run AGENTED_TEST_DATABASE=postgres go test ./internal/store`

// sqliteOnly lists migrations that have no counterpart, with the reason.
var sqliteOnly = map[string]string{}

func TestSchemas_same_files(t *testing.T) {
	t.Parallel()
	names := func(dir string) (list []string) {
		files, err := fs.Glob(schemaFS, "schema/"+dir+"/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if sqliteOnly[path.Base(f)] == "" {
				list = append(list, path.Base(f))
			}
		}
		return list
	}
	if lite, pg := names("sqlite"), names("postgres"); !slices.Equal(lite, pg) {
		t.Errorf("schema/sqlite has\n%v\nand schema/postgres\n%v\n%s", lite, pg, bothSchemas)
	}
}

// column is a column of either schema, with types under one name.
type column struct {
	kind     string
	required bool
	key      int // position in the primary key, from 1; 0: none
}

// sqliteTables returns tables and columns. Those of virtual tables are left out:
// each engine searches texts in its own way.
func sqliteTables(t *testing.T, db *DB) map[string]column {
	t.Helper()
	rows, err := db.query(t.Context(), `SELECT m.name, c.name, c.type, c."notnull", c.pk FROM pragma_table_list m JOIN pragma_table_info(m.name) c
		WHERE m.schema = 'main' AND m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> 'schema_version'`)
	return tables(t, rows, err)
}

func postgresTables(t *testing.T, db *DB) map[string]column {
	t.Helper()
	rows, err := db.query(t.Context(), `SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 1 ELSE 0 END,
		COALESCE((SELECT array_position(i.indkey::smallint[], a.attnum) + 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), 0)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'schema_version'`)
	return tables(t, rows, err)
}

func tables(t *testing.T, rows database.Rows, err error) map[string]column {
	t.Helper()
	out := map[string]column{}
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, name, kind string
		var required, key int
		if err := rows.Scan(&table, &name, &kind, &required, &key); err != nil {
			t.Fatal(err)
		}
		kind = strings.ToUpper(kind)
		switch kind {
		case "BYTEA":
			kind = "BLOB"
		case "INTEGER":
			kind = "BIGINT"
		}
		out[table+"."+name] = column{kind, required != 0, key}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSchemas_same_tables(t *testing.T) {
	t.Parallel()
	if pgtest.Selected() {
		t.Skip("runs with SQLite as the default")
	}
	pg, err := Open(t.Context(), pgtest.New(t, create), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	lite, other := sqliteTables(t, openNew(t)), postgresTables(t, pg)
	for name := range maps.Keys(lite) {
		if c, ok := other[name]; !ok || c != lite[name] {
			t.Errorf("%s is %s in SQLite and %s in PostgreSQL", name, describe(lite, name), describe(other, name))
		}
	}
	for name := range maps.Keys(other) {
		if _, ok := lite[name]; !ok {
			t.Errorf("%s is only in PostgreSQL", name)
		}
	}
	if t.Failed() {
		t.Log(bothSchemas)
	}
}

func describe(all map[string]column, name string) string {
	c, ok := all[name]
	if !ok {
		return "missing"
	}
	return fmt.Sprintf("%s (NOT NULL %v, place in the primary key %d)", c.kind, c.required, c.key)
}

// The planner prefers a scan of small tables, so scans are disabled: the test is
// whether the index can be used at all.
func TestPostgres_query_plans(t *testing.T) {
	t.Parallel()
	if pgtest.Selected() {
		t.Skip("runs with SQLite as the default")
	}
	db, err := Open(t.Context(), pgtest.New(t, create), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, c := range []struct{ statement, index string }{
		{`SELECT e.id FROM execution e WHERE e.due_at <= 1 ORDER BY e.due_at, e.admit_no LIMIT 1`, "execution_due"},
		{`SELECT e.id FROM execution e WHERE e.held_by = 'x' ORDER BY e.scheduled_at, e.admit_no LIMIT 1`, "execution_held"},
		{`SELECT COUNT(*) FROM execution WHERE lease_owner = 'x'`, "execution_owner"},
		{`SELECT key FROM account_queue WHERE check_at <= 1`, "account_queue_check"},
		{`SELECT id FROM execution WHERE give_up_at <= 1 LIMIT 5`, "execution_give_up"},
		{`SELECT id FROM execution WHERE event_seq > 1 ORDER BY event_seq LIMIT 5`, "execution_event"},
		{`SELECT id FROM delivery WHERE endpoint = 'x' AND dedup_key = '2'`, "delivery_key"},
		{`SELECT id, finished_at ` + fromEnded(&reader{db: db}) + ` ORDER BY finished_at, id LIMIT 5`, "execution_ended"},
		{`SELECT id FROM execution WHERE name_key >= 'a' AND name_key < 'b' ORDER BY name_key, created_at, id LIMIT 5`, "execution_name"},
	} {
		var plan string
		err := db.write(t.Context(), "explain", func(tx *tx) error {
			if err := tx.exec(`SET LOCAL enable_seqscan = off`); err != nil {
				return err
			}
			rows, err := tx.query(`EXPLAIN ` + c.statement)
			lines, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
			plan = strings.Join(lines, "\n")
			return err
		})
		if err != nil || !strings.Contains(plan, c.index) {
			t.Errorf("%s: %v\n%s", c.statement, err, plan)
		}
	}
}
