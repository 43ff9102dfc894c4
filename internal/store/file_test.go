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
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/agented/agented"
)

// foreignDB makes a SQLite database that is not ours.
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

// schemaPlus is the released schema with one more migration.
func schemaPlus(t *testing.T, version int, statements string) fs.FS {
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
	return out
}

// state is everything that a refusal must leave as it was.
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

func TestADatabaseThatIsNotOursIsRefusedUntouched(t *testing.T) {
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
			data := append([]byte(headerMagic), bytes.Repeat([]byte{0xff}, 8000)...)
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, agented.Conflict, "another program"},
		{"newer version", func(t *testing.T, path string) {
			db, err := open(t.Context(), path, Options{}, schemaPlus(t, 99, `CREATE TABLE later (id TEXT);`))
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

func TestANewerSchemaThatIsOnlyInTheWriteAheadLogIsRefused(t *testing.T) {
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

func TestACrashBetweenTheMarkAndTheSchemaIsMended(t *testing.T) {
	t.Parallel()
	for _, statements := range [][]string{nil, {fmt.Sprintf(`PRAGMA application_id = %d`, applicationID)}} {
		path := filepath.Join(t.TempDir(), "agented.db")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		foreignDB(t, path, statements...)
		db := openAt(t, path)
		admit(t, db, "trg-a", start)
	}
}

func TestTheFilesAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agented.db")
	db := openAt(t, path)
	admit(t, db, "trg-a", start)
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

func TestASecondServerIsToldWhoHoldsTheDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agented.db")
	db := openAt(t, path)
	link := filepath.Join(t.TempDir(), "other.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		_, err := Open(context.Background(), name, Options{})
		wantKind(t, err, agented.Conflict)
		if !strings.Contains(agented.Message(err), fmt.Sprintf("process id %d", os.Getpid())) {
			t.Error(err)
		}
	}
	admit(t, db, "trg-a", start) // still works
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, link)
}

func TestAFolderThatIsNotThereIsAClearError(t *testing.T) {
	t.Parallel()
	_, err := Open(context.Background(), filepath.Join(t.TempDir(), "no", "agented.db"), Options{})
	wantKind(t, err, agented.Unavailable)
}

func TestABackupIsTakenBeforeTheSchemaChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agented.db")
	db := openAt(t, path)
	e := admit(t, db, "trg-a", start)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
	db, err := open(t.Context(), path, o, schemaPlus(t, 999, `CREATE TABLE later (id TEXT);`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Execution(t.Context(), e.ID); err != nil {
		t.Error(err)
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
	old := openAt(t, backup) // this version still opens it
	if _, err := old.Execution(t.Context(), e.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(backup + ".tmp"); err == nil {
		t.Error("a temporary file was left behind")
	}
}

func TestOnlyTheLastCopiesFromBeforeAMigrationAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agented.db")
	openAt(t, path).Close()
	strangers := []string{"agented.db.before-vacation.bak", "agented.db.before-v1.bak.mine", "other.db.before-v1.bak"}
	for _, name := range strangers {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Of a database that was newer, before it was restored from a backup.
	names := []string{"agented.db.before-v2000.bak", "agented.db.before-v1001.bak"}
	for i, name := range names {
		file := filepath.Join(dir, name)
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		version := 901 + i
		db, err := open(t.Context(), path, Options{}, schemaPlus(t, version, fmt.Sprintf(`CREATE TABLE later%d (id TEXT);`, version)))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		taken := filepath.Join(dir, fmt.Sprintf("agented.db.before-v%d.bak", version))
		at := time.Now().Add(time.Duration(i-5) * time.Hour)
		if err := os.Chtimes(taken, at, at); err != nil {
			t.Fatal(err) // it was taken and not removed at once
		}
	}
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".before-") && !slices.Contains(strangers, e.Name()) {
			left = append(left, e.Name())
		}
	}
	if want := []string{"agented.db.before-v901.bak", "agented.db.before-v902.bak", "agented.db.before-v903.bak"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
	for _, name := range strangers {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestAMigrationThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	openAt(t, path).Close()
	_, err := open(t.Context(), path, Options{}, schemaPlus(t, 999, "CREATE TABLE later (id TEXT);\nINSERT INTO nowhere VALUES (1);"))
	if err == nil {
		t.Fatal("a broken migration went through")
	}
	db := openAt(t, path)
	var n int
	if err := db.r.QueryRow(`SELECT COUNT(*) FROM sqlite_master WHERE name = 'later'`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d tables of the broken migration are there, error %v", n, err)
	}
}

func TestReleasedMigrationsNeverChange(t *testing.T) {
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

func TestTimesComeBackAsTheyWereToTheMicrosecond(t *testing.T) {
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

func TestWhatThePragmasSayHolds(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	schema, err := fs.Sub(schemaFS, "schema/sqlite")
	if err != nil {
		t.Fatal(err)
	}
	latest := must(latestVersion(schema))(t)
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
		{db.conn, "application_id", fmt.Sprint(applicationID)},
		{db.conn, "user_version", fmt.Sprint(latest)},
	} {
		var got string
		if err := c.on.QueryRowContext(t.Context(), "PRAGMA "+c.pragma).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s is %s, error %v, want %s", c.pragma, got, err, c.want)
		}
	}
}
