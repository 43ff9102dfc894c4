package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, target := filepath.Join(dir, "notes.db"), filepath.Join(dir, "copy.db")
	f := notes(nil)
	wantProblem(t, f.Copy(t.Context(), path, target, nil), NotFound, path)
	db := openAt(t, path)
	note(t, db, "kept")
	note(t, db, "removed from the copy")
	err := f.Copy(t.Context(), path, target, func(db *sql.DB) error {
		_, err := db.Exec(`DELETE FROM note WHERE text <> 'kept'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if data, err := os.ReadFile(target); err != nil || strings.Contains(string(data), "removed from") {
		t.Errorf("deleted text remains in the copy (%v)", err)
	}
	c, version, err := f.OpenCopy(t.Context(), target)
	if err != nil || version != 1 {
		t.Fatalf("version %d, %v", version, err)
	}
	defer c.Close()
	if damage, err := CheckIntegrity(t.Context(), c); err != nil || len(damage) > 0 {
		t.Errorf("damage %v, error %v", damage, err)
	}
	if got := stored(t, c); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("copied %v", got)
	}
	if got := stored(t, db.Readers()); len(got) != 2 {
		t.Errorf("left are %v", got)
	}
	if err := f.Copy(t.Context(), path, target, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("onto a file: %v", err)
	}
}

func TestOpenCopy_rejects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other := filepath.Join(dir, "other.db")
	raw(t, other, `CREATE TABLE song (id TEXT)`)
	_, _, err := notes(nil).OpenCopy(t.Context(), other)
	wantProblem(t, err, OtherProgram, other)
	newer := filepath.Join(dir, "newer.db")
	if err := openFormat(t, newer, notes(map[int]string{7: `CREATE TABLE later (id TEXT);`})).Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = notes(nil).OpenCopy(t.Context(), newer)
	wantProblem(t, err, NewerSchema, newer)
	wantProblem(t, notes(nil).CheckUpgradable(newer), NewerSchema, newer)
	wantProblem(t, notes(nil).Copy(t.Context(), newer, filepath.Join(dir, "copy.db"), nil), NewerSchema, newer)
	if err := notes(nil).CheckUpgradable(other); err != nil {
		t.Errorf("another program's database: %v", err)
	}
}

func TestCheckIntegrity_foreign_key(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	openFormat(t, path, notes(map[int]string{2: `CREATE TABLE tag (note INTEGER REFERENCES note (id));`})).Close()
	raw(t, path, `INSERT INTO tag VALUES (7)`)
	c, _, err := notes(map[int]string{2: ``}).OpenCopy(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if damage, err := CheckIntegrity(t.Context(), c); err != nil || len(damage) != 1 || !strings.Contains(damage[0], "tag") {
		t.Errorf("damage %v, error %v", damage, err)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "notes.db")
	f := notes(nil)
	_, err := f.Inspect(t.Context(), path)
	wantProblem(t, err, NotFound, path)
	_, _, err = OpenReadOnly(path)
	wantProblem(t, err, NotFound, path)
	db := openAt(t, path)
	note(t, db, "a")
	_, err = f.Inspect(t.Context(), path)
	wantProblem(t, err, InUse, path)
	_, _, err = OpenReadOnly(path)
	wantProblem(t, err, InUse, path)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before := folder(t, dir)
	got, err := f.Inspect(t.Context(), path)
	if err != nil || len(got.Damage) > 0 || got.Version != 1 || got.Latest != 1 || got.Size == 0 {
		t.Errorf("an intact database: %+v, %v", got, err)
	}
	reading, done, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	if list := stored(t, reading); !slices.Equal(list, []string{"a"}) {
		t.Error(list)
	}
	if _, err := reading.Exec(`DELETE FROM note`); err == nil || IsMissingTable(err) {
		t.Errorf("a write: %v", err)
	}
	if _, err := reading.Query(`SELECT * FROM song`); !IsMissingTable(err) {
		t.Errorf("another table: %v", err)
	}
	_, err = f.Open(t.Context(), path, Options{})
	wantProblem(t, err, InUse, path)
	done()
	if after := folder(t, dir); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
}
