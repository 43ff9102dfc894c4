package sqlite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/agented/agented/internal/database"
)

const noteTable = `CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);`

// notes is a format with a table of notes, and more migrations by version.
func notes(more map[int]string) Format {
	files := fstest.MapFS{"0001_note.sql": &fstest.MapFile{Data: []byte("-- +goose Up\n" + noteTable)}}
	for version, statements := range more {
		files[fmt.Sprintf("%04d_more.sql", version)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + statements)}
	}
	return Format{ApplicationID: 0x4e4f5445, Migrations: files}
}

func openAt(t testing.TB, path string) *DB { return openFormat(t, path, notes(nil)) }

func openFormat(t testing.TB, path string, f Format) *DB {
	t.Helper()
	db, err := f.Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func openNew(t testing.TB) *DB {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "notes.db"))
}

func note(t testing.TB, db *DB, text string) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx database.Tx) error { return tx.Exec(`INSERT INTO note (text) VALUES ($1)`, text) }); err != nil {
		t.Fatal(err)
	}
}

// stored returns all notes in the order in which they were stored.
func stored(t testing.TB, db *sql.DB) []string {
	t.Helper()
	list, err := texts(db.Query(`SELECT text FROM note ORDER BY id`))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// raw executes statements without this package.
func raw(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", uri(path, url.Values{}))
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

// folder returns everything that a rejected open must leave unchanged.
func folder(t *testing.T, dir string) string {
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

func wantProblem(t *testing.T, err error, want Problem, path string) {
	t.Helper()
	e, ok := errors.AsType[*FileError](err)
	if !ok || e.Problem != want || e.Path != path {
		t.Errorf("error %v, want %v of %s", err, want, path)
	}
}

func TestOpen_rejects_without_changes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want Problem
	}{
		{"another program", func(t *testing.T, path string) { raw(t, path, `CREATE TABLE song (id TEXT)`) }, OtherProgram},
		{"another program in WAL mode", func(t *testing.T, path string) {
			raw(t, path, `PRAGMA journal_mode = WAL`, `CREATE TABLE song (id TEXT)`)
		}, OtherProgram},
		{"short text", func(t *testing.T, path string) { writeFile(t, path, []byte("hello")) }, NotSQLite},
		{"long text", func(t *testing.T, path string) { writeFile(t, path, bytes.Repeat([]byte("hello "), 5000)) }, NotSQLite},
		{"damaged database of another program", func(t *testing.T, path string) {
			writeFile(t, path, append([]byte(headerMagic), bytes.Repeat([]byte{0xff}, 8000)...))
		}, OtherProgram},
		{"folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, NotRegular},
		{"newer schema", func(t *testing.T, path string) {
			if err := openFormat(t, path, notes(map[int]string{99: `CREATE TABLE later (id TEXT);`})).Close(); err != nil {
				t.Fatal(err)
			}
			os.Remove(path + ".lock")
		}, NewerSchema},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "notes.db")
			c.make(t, path)
			if c.want != NotRegular {
				before := folder(t, dir)
				defer func() {
					if after := folder(t, dir); after != before {
						t.Errorf("changed to\n%s\nfrom\n%s", after, before)
					}
				}()
			}
			_, err := notes(nil).Open(t.Context(), path, Options{})
			wantProblem(t, err, c.want, path)
			if c.name == "another program" {
				if e, _ := errors.AsType[*FileError](err); !slices.Equal(e.Tables, []string{"song"}) {
					t.Errorf("tables %v", e.Tables)
				}
			}
		})
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_newer_schema_in_WAL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	openAt(t, path).Close()
	raw(t, path, `PRAGMA journal_mode = WAL`, `INSERT INTO schema_version (version_id, is_applied) VALUES (99, 1)`)
	_, err := notes(nil).Open(t.Context(), path, Options{})
	wantProblem(t, err, NewerSchema, path)
}

func TestOpen_after_crash_before_schema(t *testing.T) {
	t.Parallel()
	for _, statements := range [][]string{nil, {fmt.Sprintf(`PRAGMA application_id = %d`, notes(nil).ApplicationID)}} {
		path := filepath.Join(t.TempDir(), "notes.db")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		raw(t, path, statements...)
		note(t, openAt(t, path), "a")
	}
}

func TestOpen_file_modes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "notes.db")
	db := openAt(t, path)
	note(t, db, "a")
	check := func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) < 2 {
			t.Fatalf("%d files", len(entries))
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", e.Name(), info.Mode())
			}
		}
	}
	check()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openAt(t, path)
	check()
}

func TestOpen_locked_database(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	db := openAt(t, path)
	link := filepath.Join(t.TempDir(), "other.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		_, err := notes(nil).Open(t.Context(), name, Options{})
		wantProblem(t, err, InUse, path)
		if e, _ := errors.AsType[*FileError](err); e.Holder != os.Getpid() {
			t.Errorf("holder %d", e.Holder)
		}
	}
	note(t, db, "a") // still works
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, link)
}

func TestOpen_missing_folder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "no", "notes.db")
	_, err := notes(nil).Open(t.Context(), path, Options{})
	wantProblem(t, err, NoFolder, path)
}

func TestMigrate_backup(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	db := openAt(t, path)
	note(t, db, "a")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	db, err := notes(map[int]string{999: `CREATE TABLE later (id TEXT);`}).Open(t.Context(), path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if got := stored(t, db.Readers()); !slices.Equal(got, []string{"a"}) {
		t.Error(got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	backup := path + ".before-v999.bak"
	if !strings.Contains(log.String(), backup) {
		t.Errorf("the log does not name the backup: %s", log.String())
	}
	info, err := os.Stat(backup)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the backup has mode %v", info.Mode())
	}
	old := openAt(t, backup) // the earlier version still opens it
	if got := stored(t, old.Readers()); !slices.Equal(got, []string{"a"}) {
		t.Error(got)
	}
	if _, err := os.Stat(backup + ".tmp"); err == nil {
		t.Error("a temporary file was left behind")
	}
}

func TestMigrate_backup_failure(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	openAt(t, path).Close()
	missing := filepath.Join(t.TempDir(), "no")
	f := notes(map[int]string{999: `CREATE TABLE later (id TEXT);`})
	_, err := f.Open(t.Context(), path, Options{BackupDir: missing})
	if e, ok := errors.AsType[*BackupError](err); !ok || filepath.Dir(e.Path) != missing || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder for the copy: %v", err)
	}
	openAt(t, path) // nothing was migrated
}

func TestMigrate_keeps_latest_backups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "notes.db")
	openAt(t, path).Close()
	strangers := []string{"notes.db.before-vacation.bak", "notes.db.before-v1.bak.mine", "other.db.before-v1.bak"}
	for _, name := range strangers {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// From a database that was newer before it was restored from a backup.
	for i, name := range []string{"notes.db.before-v2000.bak", "notes.db.before-v1001.bak"} {
		file := filepath.Join(dir, name)
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	more := map[int]string{}
	for i := range 3 {
		version := 901 + i
		more[version] = fmt.Sprintf(`CREATE TABLE later%d (id TEXT);`, version)
		if err := openFormat(t, path, notes(more)).Close(); err != nil {
			t.Fatal(err)
		}
		taken := filepath.Join(dir, fmt.Sprintf("notes.db.before-v%d.bak", version))
		at := time.Now().Add(time.Duration(i-5) * time.Hour)
		if err := os.Chtimes(taken, at, at); err != nil {
			t.Fatal(err) // the backup was created and not removed immediately
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "notes.db.before-v9*.bak"))
	if err != nil || len(left) != 3 {
		t.Errorf("left are %v (%v)", left, err)
	}
	for _, name := range []string{"notes.db.before-v2000.bak", "notes.db.before-v1001.bak"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s remains", name)
		}
	}
	for _, name := range strangers {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestMigrate_failure(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	openAt(t, path).Close()
	_, err := notes(map[int]string{999: "CREATE TABLE later (id TEXT);\nINSERT INTO nowhere VALUES (1);"}).Open(t.Context(), path, Options{})
	if err == nil {
		t.Fatal("a broken migration was applied")
	}
	db := openAt(t, path)
	tables, err := texts(db.Readers().Query(`SELECT name FROM sqlite_master WHERE name = 'later'`))
	if err != nil || len(tables) != 0 {
		t.Errorf("tables of the broken migration: %v (%v)", tables, err)
	}
}

func TestPragmas(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for _, c := range []struct {
		on interface {
			QueryRowContext(context.Context, string, ...any) *sql.Row
		}
		pragma, want string
	}{
		{db.conn, "journal_mode", "wal"},
		{db.conn, "synchronous", "2"},
		{db.conn, "foreign_keys", "1"},
		{db.conn, "busy_timeout", "10000"},
		{db.r, "query_only", "1"},
		{db.r, "synchronous", "2"},
		{db.conn, "application_id", fmt.Sprint(notes(nil).ApplicationID)},
		{db.conn, "user_version", "1"},
	} {
		var got string
		if err := c.on.QueryRowContext(t.Context(), "PRAGMA "+c.pragma).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s is %s, error %v, want %s", c.pragma, got, err, c.want)
		}
	}
}
