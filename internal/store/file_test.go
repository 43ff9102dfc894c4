package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sqlite"
	"github.com/agented/agented/internal/testrun/pgtest"
)

// foreignDB creates a SQLite database of another program.
func foreignDB(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// plus is the released format with one more migration.
func plus(t *testing.T, version int, statements string) sqlite.Format {
	t.Helper()
	out := fstest.MapFS{}
	files, err := fs.Glob(schemaFS, "schema/sqlite/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := schemaFS.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(f)] = &fstest.MapFile{Data: data}
	}
	out[fmt.Sprintf("%04d_more.sql", version)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + statements)}
	return sqlite.Format{ApplicationID: databaseFormat.ApplicationID, Migrations: out}
}

// state returns everything that a rejected open must leave unchanged.
func state(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v %v %x\n", e.Name(), info.Mode(), info.ModTime(), sha256.Sum256(data))
	}
	return b.String()
}

func TestOpen_foreign_database(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	python := []string{
		`CREATE TABLE triggers (id TEXT PRIMARY KEY)`, `CREATE TABLE execution_logs (id TEXT)`, `CREATE TABLE bots (id TEXT)`,
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		kind agented.Kind
		want string
	}{
		{"python product", func(t *testing.T, path string) { foreignDB(t, path, python...) }, agented.Conflict, "written in Python"},
		{"python product in WAL mode", func(t *testing.T, path string) {
			foreignDB(t, path, append([]string{`PRAGMA journal_mode = WAL`}, python...)...)
		}, agented.Conflict, "written in Python"},
		{"another program", func(t *testing.T, path string) { foreignDB(t, path, `CREATE TABLE song (id TEXT)`) }, agented.Conflict, "another program"},
		{"text", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("hello"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, agented.Invalid, "not a SQLite database"},
		{"long text", func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("hello "), 5000), 0o644); err != nil {
				t.Fatal(err)
			}
		}, agented.Invalid, "not a SQLite database"},
		{"damaged foreign database", func(t *testing.T, path string) {
			data := append([]byte("SQLite format 3\x00"), bytes.Repeat([]byte{0xff}, 8000)...)
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, agented.Conflict, "another program"},
		{"newer version", func(t *testing.T, path string) {
			db, err := open(t.Context(), path, Options{}, plus(t, 99, `CREATE TABLE later (id TEXT);`))
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			os.Remove(path + ".lock")
		}, agented.Conflict, "newer version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "agented.db")
			c.make(t, path)
			before := state(t, dir)
			_, err := Open(context.Background(), path, Options{})
			wantKind(t, err, c.kind)
			if text := agented.Message(err); !strings.Contains(text, c.want) || !strings.Contains(text, path) {
				t.Errorf("the sentence does not say what is wrong with which file: %s", text)
			}
			if after := state(t, dir); after != before {
				t.Errorf("touched:\n%s\nwas:\n%s", after, before)
			}
		})
	}
}

func TestOpen_newer_schema_in_WAL(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	openAt(t, path).Close()
	foreignDB(t, path, `PRAGMA journal_mode = WAL`, `INSERT INTO schema_version (version_id, is_applied) VALUES (99, 1)`)
	_, err := Open(context.Background(), path, Options{})
	wantKind(t, err, agented.Conflict)
	if !strings.Contains(agented.Message(err), "newer version") {
		t.Error(err)
	}
}

func TestOpen_locked_database(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	openAt(t, path)
	_, err := Open(context.Background(), path, Options{})
	wantKind(t, err, agented.Conflict)
	if text := agented.Message(err); !strings.Contains(text, fmt.Sprintf("process id %d", os.Getpid())) || !strings.Contains(text, "AGENTED_DB_PATH") {
		t.Error(err)
	}
}

func TestOpen_missing_folder(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	_, err := Open(context.Background(), filepath.Join(t.TempDir(), "no", "agented.db"), Options{})
	wantKind(t, err, agented.Unavailable)
}

// The database as it was before a migration can be opened by this version.
func TestMigrate_backup(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	db := openAt(t, path)
	e := admit(t, db, "trg-a", start)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	more := plus(t, 999, `CREATE TABLE later (id TEXT);`)
	_, err := open(t.Context(), path, Options{BackupDir: filepath.Join(t.TempDir(), "no")}, more)
	wantKind(t, err, agented.Unavailable)
	if text := agented.Message(err); !strings.Contains(text, "nothing was changed") || !strings.Contains(text, ".before-v999.bak") {
		t.Error(text)
	}
	db, err = open(t.Context(), path, Options{}, more)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]agented.Kind{path: agented.Conflict, path + ".before-v999.bak": ""} {
		db, err := Open(t.Context(), name, Options{})
		if kind != "" {
			wantKind(t, err, kind)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Execution(t.Context(), e.ID); err != nil {
			t.Error(err)
		}
		db.Close()
	}
}

func TestMigrate_checksums(t *testing.T) {
	t.Parallel()
	want := map[string]string{}
	list, err := schemaFS.ReadFile("schema/checksums.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if sum, file, ok := strings.Cut(strings.TrimSpace(line), "  "); ok && !strings.HasPrefix(line, "#") {
			want[file] = sum
		}
	}
	got := map[string]string{}
	err = fs.WalkDir(schemaFS, "schema", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".sql") {
			return err
		}
		data, err := schemaFS.ReadFile(path)
		sum := sha256.Sum256(data)
		got[strings.TrimPrefix(path, "schema/")] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the migrations are\n%v\nand schema/checksums.txt says\n%v\nAdd a new file and its line; never change a released one.", got, want)
	}
}

func TestTimes_microseconds(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for _, at := range []time.Time{
		start, time.Unix(0, 0), time.Unix(-1, 999), time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2026, 10, 25, 2, 30, 0, 1500, time.FixedZone("CEST", 7200)),
	} {
		e := newExecution("", at)
		e.ID = agented.ExecutionID(agented.NewID("exec", start))
		if _, err := db.Admit(t.Context(), Admission{Execution: e}, at); err != nil {
			t.Fatal(err)
		}
		got := must(db.Execution(t.Context(), e.ID))(t).CreatedAt
		if want := time.UnixMicro(at.UnixMicro()).UTC(); !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%v came back as %v", at, got)
		}
	}
}

func TestMigrate_renames_json_members(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	if err := openNewAt(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db := must(sql.Open("sqlite", path))(t) // without foreign keys
	defer db.Close()
	statements := must(schemaFS.ReadFile("schema/sqlite/0023_json_names.sql"))(t)
	exec := func(q string, args ...any) {
		if _, err := db.ExecContext(t.Context(), q, args...); err != nil {
			t.Fatal(err)
		}
	}
	for i, kind := range []string{"content_delta", "tool_call"} {
		exec("INSERT INTO conversation_event (conversation_id, seq, kind, data, at) VALUES ('c', $1, $2, $3, 0)", i, kind,
			`{"cut":true,"text":"say \"cut\":true"}`)
	}
	exec(`INSERT INTO setting (key, value) VALUES ('backup', '{"last_took_ms":5,"trouble":"a \"trouble\": none"}')`)
	exec(string(statements))
	for q, want := range map[string]string{
		"SELECT data FROM conversation_event WHERE seq = 0": `{"truncated":true,"text":"say \"cut\":true"}`,
		"SELECT data FROM conversation_event WHERE seq = 1": `{"cut":true,"text":"say \"cut\":true"}`,
		"SELECT value FROM setting WHERE key = 'backup'":    `{"last_duration_ms":5,"problem":"a \"trouble\": none"}`,
	} {
		var got string
		if err := db.QueryRowContext(t.Context(), q).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %s, error %v, want %s", q, got, err, want)
		}
	}
}

func TestInspect_changes_nothing(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agented.db")
	if _, err := Inspect(t.Context(), path); !errors.Is(err, agented.NotFound) {
		t.Errorf("without a database: %v", err)
	}
	db, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Inspect(t.Context(), path)
	var holder Holder
	if !errors.Is(err, agented.Conflict) || !errors.As(err, &holder) || int(holder) != os.Getpid() {
		t.Errorf("while it is open: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before := state(t, dir)
	got, err := Inspect(t.Context(), path)
	if err != nil || len(got.Damage) > 0 || got.Version != got.Latest || got.Version == 0 || got.Size == 0 {
		t.Errorf("a good database: %+v, %v", got, err)
	}
	if after := state(t, dir); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
}

func TestInspect_damage_and_foreign_files(t *testing.T) {
	pgtest.SkipSelected(t, "files of SQLite")
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agented.db")
	db, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 4096)
	for i := range junk {
		junk[i] = byte(i*7 + 1)
	}
	for page := int64(2); page < 8; page++ {
		if _, err := f.WriteAt(junk, page*4096); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	got, err := Inspect(t.Context(), path)
	if err != nil || len(got.Damage) == 0 {
		t.Errorf("a damaged database: %+v, %v", got, err)
	}

	other := filepath.Join(dir, "other.db")
	foreignDB(t, other, `CREATE TABLE x (y)`)
	if _, err := Inspect(t.Context(), other); !errors.Is(err, agented.Conflict) {
		t.Errorf("a foreign database: %v", err)
	}
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), text); !errors.Is(err, agented.Invalid) {
		t.Errorf("a text file: %v", err)
	}
}
