package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented"
)

func TestInspectChangesNothing(t *testing.T) {
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

func TestInspectFindsDamageAndForeignFiles(t *testing.T) {
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
