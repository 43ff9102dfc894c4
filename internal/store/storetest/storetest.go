// Package storetest opens databases for tests.
package storetest

import (
	"context"
	"testing"

	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

// Open opens a new database at path and closes it at the end of the test. The migrations run once in
// a test binary; its other databases begin as copies.
func Open(t testing.TB, path string, options store.Options) *store.DB {
	t.Helper()
	testrun.Database(t, path, func(path string) error {
		db, err := store.Open(context.Background(), path, options)
		if err != nil {
			return err
		}
		return db.Close()
	})
	db, err := store.Open(context.Background(), path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
