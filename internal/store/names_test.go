package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
)

const (
	composed   = "Caf\u00e9"
	decomposed = "cafe\u0301"
)

func named(name string) *agented.Trigger {
	return &agented.Trigger{Name: name, Enabled: true, Spec: agented.Spec{Backend: agented.BackendCommand, Command: []string{"x"}, MaxConcurrent: 1}}
}

func TestNames(t *testing.T) {
	t.Parallel()
	t.Run("compositions are one name", func(t *testing.T) {
		t.Parallel()
		db := openNew(t)
		ctx := t.Context()
		if err := db.CreateTrigger(ctx, named(composed), "a"); err != nil {
			t.Fatal(err)
		}
		if err := db.CreateTrigger(ctx, named(decomposed), "a"); !errors.Is(err, agented.Conflict) {
			t.Errorf("trigger: %v", err)
		}
		if got := must(db.TriggerByName(ctx, decomposed))(t); got.Name != composed {
			t.Errorf("found %q", got.Name)
		}
		if err := db.CreateUser(ctx, &User{Name: decomposed, PasswordHash: "h", Role: agented.RoleAdmin}, "a"); err != nil {
			t.Fatal(err)
		}
		if err := db.CreateUser(ctx, &User{Name: composed, PasswordHash: "h", Role: agented.RoleAdmin}, "a"); !errors.Is(err, agented.Conflict) {
			t.Errorf("user: %v", err)
		}
		if got := must(db.UserByName(ctx, composed))(t); got.Name != decomposed {
			t.Errorf("found %q", got.Name)
		}
	})
	t.Run("old keys are composed at the start", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		path := filepath.Join(t.TempDir(), "agented.db")
		db := openNewAt(t, path)
		alone, twin := named(decomposed), named("nai\u0308ve")
		for _, tr := range []*agented.Trigger{alone, twin} {
			if err := db.CreateTrigger(ctx, tr, "a"); err != nil {
				t.Fatal(err)
			}
			// As stored by a version without Unicode normalisation.
			err := db.write(ctx, "test", func(tx *tx) error {
				return tx.exec(`UPDATE trigger_ SET name_key = $2 WHERE id = $1`, tr.ID, strings.ToLower(tr.Name))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		other := named("na\u00efve")
		if err := db.CreateTrigger(ctx, other, "a"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}

		db = openAt(t, path)
		if err := db.CreateTrigger(ctx, named(composed), "a"); !errors.Is(err, agented.Conflict) {
			t.Errorf("a second name: %v", err)
		}
		for _, tr := range []*agented.Trigger{alone, twin, other} {
			if got := must(db.TriggerByName(ctx, tr.Name))(t); got.ID != tr.ID {
				t.Errorf("%q found %q", tr.Name, got.Name)
			}
			tr.Enabled = false
			if err := db.UpdateTrigger(ctx, tr, "a"); err != nil {
				t.Errorf("%q cannot be changed: %v", tr.Name, err)
			}
		}
	})
}
