package store

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/agented/agented"
)

func someTrigger(name string) *agented.Trigger {
	return &agented.Trigger{Name: name, Enabled: true, Spec: agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}}.WithDefaults()}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	db := openAt(t, filepath.Join(t.TempDir(), "agented.db"))
	there := func(name string) bool {
		_, err := db.TriggerByName(t.Context(), name)
		return err == nil
	}
	two := func(fail error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := db.CreateTrigger(ctx, someTrigger("a"), "test"); err != nil {
				return err
			}
			return errors.Join(db.CreateTrigger(ctx, someTrigger("b"), "test"), fail)
		}
	}
	if err := db.Together(t.Context(), "try", false, two(nil)); err != nil || there("a") || there("b") {
		t.Errorf("a trial: %v, %v %v", err, there("a"), there("b"))
	}
	if err := db.Together(t.Context(), "fail", true, two(errors.New("no"))); err == nil || there("a") || there("b") {
		t.Errorf("a failure: %v, %v %v", err, there("a"), there("b"))
	}
	if err := db.Together(t.Context(), "keep", true, two(nil)); err != nil || !there("a") || !there("b") {
		t.Errorf("kept: %v, %v %v", err, there("a"), there("b"))
	}
}

// A transaction of several writes and a delivery that holds the rules take the
// gate and the writer's turn in the same order.
func TestTogetherWithHeldRules(t *testing.T) {
	t.Parallel()
	db := openAt(t, filepath.Join(t.TempDir(), "agented.db"))
	tr := someTrigger("a")
	if err := db.CreateTrigger(t.Context(), tr, "test"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 2 {
		own := *tr
		all.Go(func() {
			for range 100 {
				if err := db.Together(t.Context(), "update", true, func(ctx context.Context) error { return db.UpdateTrigger(ctx, &own, "test") }); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 100 {
				release := db.HoldRules()
				err := db.write(t.Context(), "delivery", func(*tx) error { return nil })
				release()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
