package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/sqlite"
)

var songs = sqlite.Format{
	ApplicationID: 0x534f4e47,
	Migrations: fstest.MapFS{"0001_song.sql": &fstest.MapFile{Data: []byte(
		"-- +goose Up\nCREATE TABLE song (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE);")}},
}

func open(ctx context.Context) (db *sqlite.DB, path string, done func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	path = filepath.Join(dir, "songs.db")
	if db, err = songs.Open(ctx, path, sqlite.Options{}); err != nil {
		panic(err)
	}
	return db, path, func() { db.Close(); os.RemoveAll(dir) }
}

func ExampleDB_Write() {
	ctx := context.Background()
	db, _, done := open(ctx)
	defer done()
	add := func(titles ...string) error {
		return db.Write(ctx, func(tx database.Tx) error {
			for _, t := range titles {
				if err := tx.Exec(`INSERT INTO song (title) VALUES ($1)`, t); err != nil {
					return err
				}
			}
			return nil
		})
	}
	fmt.Println(add("Gymnopédie", "Vexations"))
	fmt.Println(sqlite.IsDuplicate(add("Parade", "Vexations"))) // Parade is rolled back
	var n int
	fmt.Println(db.Readers().QueryRow(`SELECT COUNT(*) FROM song`).Scan(&n), n)
	// Output:
	// <nil>
	// true
	// <nil> 2
}

func ExampleGroup() {
	ctx := context.Background()
	db, _, done := open(ctx)
	defer done()
	group := database.NewGroup(db.Write)
	for range 2 { // usually many goroutines, whose jobs share commits
		err := group.Do(ctx, func(tx database.Tx) error { return tx.Exec(`INSERT INTO song (title) VALUES ('Socrate')`) })
		fmt.Println(sqlite.IsDuplicate(err))
	}
	// Output:
	// false
	// true
}

func ExampleFormat_Open_inUse() {
	ctx := context.Background()
	_, path, done := open(ctx)
	defer done()
	_, err := songs.Open(ctx, path, sqlite.Options{})
	var file *sqlite.FileError
	fmt.Println(errors.As(err, &file), file.Problem, file.Holder == os.Getpid())
	// Output: true another process has it open true
}

func ExampleFormat_Copy() {
	ctx := context.Background()
	_, path, done := open(ctx)
	defer done()
	target := path + ".copy"
	err := songs.Copy(ctx, path, target, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `DELETE FROM song`)
		return err
	})
	fmt.Println(err)
	copied, version, err := songs.OpenCopy(ctx, target)
	fmt.Println(version, err)
	defer copied.Close()
	damage, err := sqlite.CheckIntegrity(ctx, copied)
	fmt.Println(damage, err)
	// Output:
	// <nil>
	// 1 <nil>
	// [] <nil>
}

func ExampleFormat_Inspect() {
	ctx := context.Background()
	db, path, done := open(ctx)
	defer done()
	db.Close()
	got, err := songs.Inspect(ctx, path)
	fmt.Println(got.Version, got.Latest, got.Damage, err)
	// Output: 1 1 [] <nil>
}
