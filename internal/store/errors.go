package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"syscall"

	"github.com/agented/agented"
	"modernc.org/sqlite"
)

// SQLite's result codes that mean something to us. The low byte is the primary
// code.
const (
	codeBusy       = 5
	codeLocked     = 6
	codeReadOnly   = 8
	codeIOErr      = 10
	codeCorrupt    = 11
	codeFull       = 13
	codeCantOpen   = 14
	codeNotADB     = 26
	codePrimaryKey = 1555
	codeUnique     = 2067
)

// code is SQLite's result code in err's chain, 0 if there is none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// duplicate reports whether err says that a unique value is taken.
func duplicate(err error) bool {
	c := code(err)
	return c == codeUnique || c == codePrimaryKey
}

// missing reports whether err says that there is no such row.
func missing(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// explain says what happened while doing what. Errors that already have a kind
// and ended contexts stay as they are; a database that cannot work becomes
// Unavailable with the mend.
func (db *DB) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*agented.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, err)
	}
	cause := fmt.Errorf("%s: %w", what, err)
	unavailable := func(text string) error {
		return agented.Errorf(agented.Unavailable, "%s", text).Because(cause)
	}
	switch c := code(err); {
	case c&0xff == codeFull, errors.Is(err, syscall.ENOSPC):
		return unavailable("the disk that holds the database is full: free some space there, then try again")
	case c&0xff == codeIOErr:
		return unavailable("the database could not be read or written: check the disk that holds it (the server's log has the cause)")
	case c&0xff == codeBusy, c&0xff == codeLocked:
		return unavailable("the database is busy: another program holds it; try again shortly")
	case c&0xff == codeReadOnly, c&0xff == codeCantOpen:
		return unavailable("the database cannot be written: check the permissions of its file and folder")
	case c&0xff == codeCorrupt, c&0xff == codeNotADB:
		return unavailable("the database file is damaged: stop the server and restore a backup (the server's log has the cause)")
	case errors.Is(err, sql.ErrConnDone), err.Error() == "sql: database is closed":
		return unavailable("the server is stopping; try again shortly")
	}
	return cause
}
