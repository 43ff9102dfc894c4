package sqlite

import (
	"context"
	"errors"
	"fmt"
)

// freeShare is the percentage of pages that stay free for new data.
const freeShare = 10

// Shrink shrinks the database file by a few pages at a time if many of its
// pages are free, and truncates the write-ahead log. It returns by how many
// bytes the file shrank. A file created without auto_vacuum reuses its free
// pages and does not shrink.
func (db *DB) Shrink(ctx context.Context) (int64, error) {
	const step = 256 // pages
	var given int64
	for {
		var pages, free, size int64
		err := db.r.QueryRowContext(ctx, `SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&pages, &free, &size)
		if err != nil {
			return given, err
		}
		if free-step < pages*freeShare/100 {
			break
		}
		if err := db.alone(ctx, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, step)); err != nil {
			return given, err
		}
		var now int64
		if err := db.r.QueryRowContext(ctx, `SELECT page_count FROM pragma_page_count`).Scan(&now); err != nil {
			return given, err
		}
		if now >= pages {
			break // created without auto_vacuum
		}
		given += (pages - now) * size
	}
	// An active reader keeps the log until the next call.
	return given, db.alone(ctx, `PRAGMA busy_timeout(100)`, `PRAGMA wal_checkpoint(TRUNCATE)`, `PRAGMA busy_timeout(10000)`)
}

// alone runs statements in the writer's turn, outside a transaction.
func (db *DB) alone(ctx context.Context, statements ...string) error {
	if err := db.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-db.turn }()
	ctx = context.WithoutCancel(ctx) // the last statement resets what the first one sets
	for _, q := range statements {
		rows, err := db.conn.QueryContext(ctx, q)
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
	}
	return nil
}
