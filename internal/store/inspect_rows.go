package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"

	"github.com/agented/agented"
)

// States looks up where executions stand in the database at path without
// changing it, as Inspect does and with its errors. An id that the database
// does not know is not in the answer.
func States(ctx context.Context, path string, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	unlock, err := borrowLock(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(path); err != nil {
		return nil, agented.Errorf(agented.NotFound, "there is no database at %s yet", path)
	}
	q := url.Values{"mode": {"ro"}, "_query_only": {"1"}}
	if wal, err := os.Stat(path + "-wal"); err != nil || wal.Size() == 0 {
		q.Set("immutable", "1")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	find, err := db.PrepareContext(ctx, `SELECT status FROM execution WHERE id = ?`)
	if err != nil {
		return nil, err
	}
	defer find.Close()
	out := map[agented.ExecutionID]agented.State{}
	for _, id := range ids {
		var s string
		switch err := find.QueryRowContext(ctx, id).Scan(&s); {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return nil, err
		default:
			out[id] = agented.State(s)
		}
	}
	return out, nil
}
