package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/postgres"
	"github.com/agented/agented/internal/sqlite"
)

// duplicate reports whether err is a violation of a unique constraint.
func duplicate(err error) bool { return sqlite.IsDuplicate(err) || postgres.IsDuplicate(err) }

// missing reports whether err means that there is no such row.
func missing(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// faults are the messages for a database that cannot work.
var faults = map[database.Fault]string{
	database.NoDescriptors: "the server has no file descriptors left: raise its limit (LimitNOFILE= in its unit, ulimit -n in a shell), or close connections",
	database.DiskFull:      "the disk that holds the database is full: free some space there, then try again",
	database.IOFailed:      "the database could not be read or written: check the disk that holds it (the server's log has the cause)",
	database.Busy:          "the database is busy: another program has locked it; try again shortly",
	database.ReadOnly:      "the database cannot be written: check the permissions of its file and folder",
	database.Damaged:       "the database file is damaged: stop the server and restore a backup (the server's log has the cause)",
	database.Closed:        "the server is stopping; try again shortly",
	database.Unreachable:   "the database cannot be reached; try again shortly (the server's log has the cause)",
	database.Unknown:       "the connection to the database was lost, and it is unknown whether the change was stored: check before repeating it",
	database.Taken:         "another server has taken over the database: stop one of the two",
}

// explain wraps an error with the operation. Errors that already have a kind,
// and ended contexts, are unchanged; a database that cannot work becomes
// Unavailable with the fix.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*agented.Error](err); ok {
		return err
	}
	cause := fmt.Errorf("%s: %w", what, err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return cause
	}
	if postgres.IsDuplicate(err) {
		// A statement that was sent with later ones: see tx.exec.
		return agented.Errorf(agented.Conflict, "an object with that id or name already exists").Because(cause)
	}
	if text := faults[faultOf(err)]; text != "" {
		return agented.Errorf(agented.Unavailable, "%s", text).Because(cause)
	}
	return cause
}

// faultOf classifies an error of either engine.
func faultOf(err error) database.Fault {
	if fault := postgres.FaultOf(err); fault != 0 {
		return fault
	}
	return sqlite.FaultOf(err)
}

// openPostgresError adds the message and the fix to an error of a PostgreSQL
// database that cannot be opened.
func openPostgresError(err error) error {
	e, ok := errors.AsType[*postgres.OpenError](err)
	if !ok {
		return explain("open the database", err)
	}
	var text string
	kind := agented.Unavailable
	switch e.Problem {
	case postgres.BadURL:
		kind, text = agented.Invalid, fmt.Sprintf("AGENTED_DATABASE_URL cannot be read (%v): write postgres://USER:PASSWORD@HOST:5432/DATABASE, special characters in the password URL-encoded", e.Err)
	case postgres.InUse:
		holder := "another server"
		if e.Holder != "" {
			holder = fmt.Sprintf("another server (connected %s)", e.Holder)
		}
		kind, text = agented.Conflict, fmt.Sprintf("the database is in use by %s: stop that one first, or set AGENTED_DATABASE_URL to another database; several servers cannot share a database", holder)
	case postgres.Standby:
		text = "the database server is a read-only standby: set AGENTED_DATABASE_URL to the primary, for example with several hosts and target_session_attrs=read-write"
	case postgres.OldServer:
		kind, text = agented.Invalid, fmt.Sprintf("PostgreSQL %s is not supported: use version 14 or later", e.Detail)
	case postgres.NotUTF8:
		kind, text = agented.Invalid, fmt.Sprintf("the encoding of the database is %s: create it with ENCODING 'UTF8' TEMPLATE template0", e.Detail)
	case postgres.NoSchema:
		kind, text = agented.Invalid, "the database has no schema that this user may use: grant USAGE and CREATE on schema public, or make the user the owner of the database"
	case postgres.OtherProgram:
		kind, text = agented.Conflict, "the database has tables of another program: nothing was changed in it; set AGENTED_DATABASE_URL to a database of its own"
	case postgres.NewerSchema:
		kind, text = agented.Conflict, fmt.Sprintf("the database was written by a newer version of Agented (schema %d, this version supports %d): nothing was changed in it; start the newer version", e.Version, e.Latest)
	case postgres.LocaleOrder:
		kind, text = agented.Invalid, fmt.Sprintf("the column %s of the database does not sort by bytes (COLLATE \"C\"): restore the collation of the column, or copy the data into a new database with agented db copy", e.Detail)
	default:
		text = fmt.Sprintf("the database cannot be reached (%v): check AGENTED_DATABASE_URL, and that PostgreSQL runs and accepts this user", e.Err)
	}
	return agented.Errorf(kind, "%s", text).Because(e.Err)
}

// openError adds the message and the fix to an error of a database file that
// cannot be opened.
func openError(err error) error {
	if e, ok := errors.AsType[*sqlite.BackupError](err); ok {
		if x, ok := explain("backup", e.Err).(*agented.Error); ok {
			return agented.Errorf(x.Kind, "no backup could be taken before the migration, so nothing was changed: %s", x.Text).Because(e.Err)
		}
		return agented.Errorf(agented.Unavailable, "no backup could be written to %s before the migration, so nothing was changed: free space or fix its permissions, then start again", e.Path).Because(e.Err)
	}
	e, ok := errors.AsType[*sqlite.FileError](err)
	if !ok {
		return explain("open the database", err)
	}
	var text string
	kind := agented.Unavailable
	switch e.Problem {
	case sqlite.NoFolder:
		text = fmt.Sprintf("the folder of the database %s cannot be used: create it, or set AGENTED_DB_PATH", e.Path)
	case sqlite.NoLockFile:
		text = fmt.Sprintf("the lock file of the database, %s.lock, cannot be opened: check the permissions of the file and its folder", e.Path)
	case sqlite.InUse:
		holder := "another server"
		if e.Holder != 0 {
			holder = fmt.Sprintf("the server with process id %d", e.Holder)
		}
		kind, text = agented.Conflict, fmt.Sprintf("the database %s is in use by %s: stop that one first, or set AGENTED_DB_PATH to another file", e.Path, holder)
	case sqlite.NotCreated:
		text = fmt.Sprintf("the database %s cannot be created: check the permissions of its folder", e.Path)
	case sqlite.NotRegular:
		kind, text = agented.Invalid, e.Path+" is not a file: set AGENTED_DB_PATH to the database file"
	case sqlite.NotSQLite:
		kind, text = agented.Invalid, e.Path+" is not a SQLite database: "+unchanged
	case sqlite.OtherProgram:
		return otherProgram(e)
	case sqlite.NewerSchema:
		kind, text = agented.Conflict, fmt.Sprintf("the database %s was written by a newer version of Agented (schema %d, this version supports %d): nothing was changed in it; start the newer version, or restore the backup that it took before it changed the schema",
			e.Path, e.Version, e.Latest)
	case sqlite.PublicReadable:
		text = fmt.Sprintf("the database %s can be read by other users, and its mode could not be changed: make it 0600", e.Path)
	default:
		text = fmt.Sprintf("the database %s cannot be read: check its permissions", e.Path)
	}
	return agented.Errorf(kind, "%s", text).Because(e.Err)
}

const unchanged = "nothing was changed in it; set AGENTED_DB_PATH to another file, or move this one away"

// otherProgram returns an error that identifies the program of a database by
// its tables.
func otherProgram(e *sqlite.FileError) error {
	if slices.Contains(e.Tables, "triggers") && (slices.Contains(e.Tables, "execution_logs") || slices.Contains(e.Tables, "bots")) {
		return agented.Errorf(agented.Conflict,
			"%s is the database of the earlier Agented, the one written in Python, whose data this version cannot read: %s", e.Path, unchanged)
	}
	return agented.Errorf(agented.Conflict, "%s is a SQLite database of another program: %s", e.Path, unchanged).Because(e.Err)
}

// inspectError is openError for callers that never change the file.
func inspectError(err error) error {
	e, ok := errors.AsType[*sqlite.FileError](err)
	if !ok {
		return err
	}
	switch e.Problem {
	case sqlite.NotFound:
		return agented.Errorf(agented.NotFound, "there is no database at %s yet", e.Path)
	case sqlite.NoLockFile:
		return agented.Errorf(agented.Unavailable, "the lock file of the database, %s.lock, cannot be opened: check its permissions", e.Path).Because(e.Err)
	case sqlite.InUse:
		return agented.Errorf(agented.Conflict, "the database is in use by a server (process %d)", e.Holder).Because(Holder(e.Holder))
	case sqlite.NotSQLite:
		return agented.Errorf(agented.Invalid, "%s is not a SQLite database: set AGENTED_DB_PATH to another file, or move this one away", e.Path)
	}
	return openError(err)
}

// Holder is the process id of the server that has a database open, 0 if
// unknown. It is in the chain of Inspect's Conflict.
type Holder int

func (h Holder) Error() string { return "held by process " + strconv.Itoa(int(h)) }
