package postgres

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/agented/agented/internal/database"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// Problem is why a database cannot be opened.
type Problem int

// The problems.
const (
	BadURL       Problem = iota + 1 // the URL cannot be parsed
	NotReached                      // there is no connection, or the login was refused
	InUse                           // another server of the program uses it
	Standby                         // the server is a read-only standby
	OldServer                       // the version of PostgreSQL is not supported
	NotUTF8                         // the encoding of the database is not UTF-8
	NoSchema                        // the user has no schema to create tables in
	OtherProgram                    // the schema has tables of another program
	NewerSchema                     // a newer version of the program has changed the schema
	LocaleOrder                     // a text column does not sort by bytes
)

var problems = map[Problem]string{
	BadURL: "the URL cannot be read", NotReached: "it cannot be reached", InUse: "another server uses it", Standby: "it is a read-only standby",
	OldServer: "PostgreSQL is too old", NotUTF8: "its encoding is not UTF8", NoSchema: "there is no schema to use",
	OtherProgram: "its schema has tables of another program", NewerSchema: "its schema is newer", LocaleOrder: "a column sorts by locale",
}

func (p Problem) String() string { return problems[p] }

// OpenError is returned for a database that cannot be used.
type OpenError struct {
	Problem Problem
	Holder  string // for InUse: describes the session of the other server; may be empty
	Detail  string // for OldServer, NotUTF8, LocaleOrder: what was found
	Version int64  // for NewerSchema: its schema version
	Latest  int64  // for NewerSchema: the latest version of this program
	Err     error  // cause; nil: none
}

func (e *OpenError) Error() string {
	text := e.Problem.String()
	switch {
	case e.Holder != "":
		text += " (" + e.Holder + ")"
	case e.Detail != "":
		text += " (" + e.Detail + ")"
	case e.Problem == NewerSchema:
		text += fmt.Sprintf(" (%d, supported are up to %d)", e.Version, e.Latest)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *OpenError) Unwrap() error { return e.Err }

// openError classifies an error of the first connection.
func openError(err error) error {
	if _, ok := errors.AsType[*OpenError](err); ok {
		return err
	}
	return &OpenError{Problem: NotReached, Err: err}
}

// lostCommit is returned if it is unknown whether a transaction was committed.
type lostCommit struct{ cause error }

func (e *lostCommit) Error() string {
	return "whether the transaction was committed is unknown: " + e.cause.Error()
}

// FaultOf classifies an error of this package or of the driver; 0 means that the
// statement is wrong, or that err is nil.
func FaultOf(err error) database.Fault {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return faultOfCode(e.Code)
	}
	if e, ok := errors.AsType[*OpenError](err); ok {
		if e.Problem == InUse {
			return database.Taken
		}
		return database.Unreachable
	}
	if _, ok := errors.AsType[*lostCommit](err); ok {
		return database.Unknown
	}
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, sql.ErrConnDone), errors.Is(err, puddle.ErrClosedPool):
		return database.Closed
	case connect, network, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		strings.HasSuffix(err.Error(), "conn closed"), strings.HasSuffix(err.Error(), "closed connection"):
		return database.Unreachable
	}
	return 0
}

// faultOfCode classifies PostgreSQL's SQLSTATE.
func faultOfCode(code string) database.Fault {
	switch code {
	case "53100":
		return database.DiskFull
	case "57014", "55P03", "40P01", "40001": // a limit of time, a lock, a deadlock
		return database.Busy
	case "25006", "42501":
		return database.ReadOnly
	case "XX001", "XX002":
		return database.Damaged
	case "58030":
		return database.IOFailed
	case "57P01", "57P02", "57P03", "57P04", "57P05", "53300", "53200", "25P03", "3D000":
		return database.Unreachable
	}
	if strings.HasPrefix(code, "08") || strings.HasPrefix(code, "28") {
		return database.Unreachable
	}
	return 0
}

// IsDuplicate reports whether err is a violation of a unique constraint.
func IsDuplicate(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}
