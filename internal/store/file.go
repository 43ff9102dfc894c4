package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sqlite"
)

// Snapshot copies the database at path, which a server may be using, to target,
// which must not exist. The copy is consistent and contains every transaction
// that was committed before the call. It has no sessions, and the leases of
// running executions have expired, so that the next server takes them over
// immediately.
func Snapshot(ctx context.Context, path, target string) error {
	err := databaseFormat.Copy(ctx, path, target, func(db *sql.DB) error {
		for _, q := range []string{
			`DELETE FROM session`,
			`UPDATE execution SET lease_expires_at = 0 WHERE lease_owner IS NOT NULL`,
		} {
			if _, err := db.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	e, ok := errors.AsType[*sqlite.FileError](err)
	switch {
	case !ok:
		return explain("copy the database", err)
	case e.Problem == sqlite.NotFound:
		return agented.Errorf(agented.NotFound, "there is no database at %s: set AGENTED_DATA_DIR or AGENTED_DB_PATH to those of the server", e.Path)
	}
	return openError(err)
}

// Copy is a read-only copy of a database, created by Snapshot.
type Copy struct {
	db      *sql.DB
	Version int64 // version of its schema
}

// OpenCopy opens a copy for reading. It rejects databases of other programs and
// newer versions. The content is not trusted.
func OpenCopy(ctx context.Context, path string) (*Copy, error) {
	db, version, err := databaseFormat.OpenCopy(ctx, path)
	e, _ := errors.AsType[*sqlite.FileError](err)
	switch {
	case err == nil:
		return &Copy{db: db, Version: version}, nil
	case e != nil && e.Problem == sqlite.OtherProgram:
		return nil, agented.Errorf(agented.Invalid, "the database in the backup is not one of Agented")
	case e != nil && e.Problem == sqlite.NewerSchema:
		return nil, agented.Errorf(agented.Invalid, "the database in the backup has schema version %d, and this program supports up to %d: use a newer Agented", e.Version, e.Latest)
	}
	return nil, agented.Errorf(agented.Invalid, "the database in the backup cannot be read").Because(err)
}

// Close closes the copy.
func (c *Copy) Close() error { return c.db.Close() }

// Damage returns the findings of SQLite's integrity check and of the
// foreign-key check, at most ten lines; none means intact.
func (c *Copy) Damage(ctx context.Context) ([]string, error) { return sqlite.CheckIntegrity(ctx, c.db) }

// CopyCounts are the numbers of objects in a copy.
type CopyCounts struct {
	Triggers   int64 `json:"triggers"`
	Executions int64 `json:"executions"`
	Deliveries int64 `json:"deliveries"`
	Users      int64 `json:"users"`
}

// Counts returns the numbers of objects.
func (c *Copy) Counts(ctx context.Context) (n CopyCounts, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM trigger_), (SELECT COUNT(*) FROM execution),
		(SELECT COUNT(*) FROM delivery), (SELECT COUNT(*) FROM user_)`).Scan(&n.Triggers, &n.Executions, &n.Deliveries, &n.Users)
	return n, err
}

// CopiedExecution is the data of an execution that a backup needs.
type CopiedExecution struct {
	ID        agented.ExecutionID
	State     agented.State
	AttemptNo int
	LastSeq   agented.Seq
	Removed   bool // retention removed its log
}

func (c *Copy) columns() string {
	removed := `log_removed_at IS NOT NULL`
	if c.Version < 4 {
		removed = `FALSE`
	}
	return `id, status, attempt_no, last_seq, ` + removed
}

func scanCopied(e *CopiedExecution, scan func(...any) error) error {
	return scan(&e.ID, &e.State, &e.AttemptNo, &e.LastSeq, &e.Removed)
}

// Executions calls f for each execution that may have files, in the order of
// their ids.
func (c *Copy) Executions(ctx context.Context, f func(CopiedExecution) error) error {
	rows, err := c.db.QueryContext(ctx, `SELECT `+c.columns()+` FROM execution WHERE attempt_no > 0 ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e CopiedExecution
		if err := scanCopied(&e, rows.Scan); err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Execution returns one execution of the copy, or NotFound.
func (c *Copy) Execution(ctx context.Context, id agented.ExecutionID) (CopiedExecution, error) {
	var e CopiedExecution
	err := scanCopied(&e, c.db.QueryRowContext(ctx, `SELECT `+c.columns()+` FROM execution WHERE id = $1`, id).Scan)
	if missing(err) {
		return e, noExecution(id)
	}
	return e, err
}

// Expected returns how many logs of ended executions must exist according to
// the copy.
func (c *Copy) Expected(ctx context.Context) (n int64, err error) {
	err = c.Executions(ctx, func(e CopiedExecution) error {
		if e.HasLog() {
			n++
		}
		return nil
	})
	return n, err
}

// HasLog reports whether a log must exist. For a running execution only its
// files show that.
func (e CopiedExecution) HasLog() bool { return e.State.Final() && e.LastSeq > 0 && !e.Removed }

// conversationVersion is the version of the schema that added conversations.
const conversationVersion = 6

// Conversations calls f with each conversation, in the order of their ids.
func (c *Copy) Conversations(ctx context.Context, f func(agented.ConversationID) error) error {
	if c.Version < conversationVersion {
		return nil
	}
	rows, err := c.db.QueryContext(ctx, `SELECT id FROM conversation ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id agented.ConversationID
		if err := rows.Scan(&id); err != nil {
			return err
		}
		if !agented.ValidID("conv", string(id)) {
			continue
		}
		if err := f(id); err != nil {
			return err
		}
	}
	return rows.Err()
}

// HasConversation reports whether the copy has a conversation.
func (c *Copy) HasConversation(ctx context.Context, id agented.ConversationID) (bool, error) {
	if c.Version < conversationVersion {
		return false, nil
	}
	var n int
	err := c.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM conversation WHERE id = $1`, id).Scan(&n)
	return n > 0, err
}

// HoldCopy turns on drain mode for the server that will be started on the
// database at path: it starts no execution until an admin turns drain mode off.
func HoldCopy(ctx context.Context, path string, now time.Time) error {
	value, err := json.Marshal(map[string]any{"since": now.UTC(), "by": "restore --hold"})
	if err != nil {
		return err
	}
	return sqlite.EditCopy(path, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, SettingDrained, string(value))
		return err
	})
}

// Inspection is the result of Inspect.
type Inspection = sqlite.Inspection

// Inspect examines the database file at path without changing it: it creates,
// migrates and repairs nothing. It returns NotFound if there is no database
// yet, and Conflict if a server has it open (the message and Holder contain its
// process id) or if Open would reject it.
func Inspect(ctx context.Context, path string) (Inspection, error) {
	got, err := databaseFormat.Inspect(ctx, path)
	return got, inspectError(err)
}

// CheckUpgradable returns an error if the database at path was written by a newer
// version, which this one would refuse to open. It reads only the start of the
// file, so another process may be using it, but this process must not.
func CheckUpgradable(path string) error {
	if err := databaseFormat.CheckUpgradable(path); err != nil {
		return openError(err)
	}
	return nil
}

// States returns the states of executions in the database at path without
// changing it, with the errors of Inspect. Unknown ids are omitted.
func States(ctx context.Context, path string, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
	db, done, err := sqlite.OpenReadOnly(path)
	if err != nil {
		return nil, inspectError(err)
	}
	defer done()
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

// ReadFailedRemovals returns the folders that could not be removed, as id and error,
// from the database at path, which no server may have open. It is empty if the
// database has no such table.
func ReadFailedRemovals(ctx context.Context, path string) (map[string]string, error) {
	db, done, err := sqlite.OpenReadOnly(path)
	if err != nil {
		return nil, inspectError(err)
	}
	defer done()
	out := map[string]string{}
	rows, err := db.QueryContext(ctx, `SELECT id, error FROM folder_removal WHERE attempts > 0`)
	if err != nil {
		if sqlite.IsMissingTable(err) {
			return out, nil
		}
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, text string
		if err := rows.Scan(&id, &text); err != nil {
			return nil, err
		}
		out[id] = text
	}
	return out, rows.Err()
}
