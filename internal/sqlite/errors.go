package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/agented/agented/internal/database"
	"modernc.org/sqlite"
)

// Problem is why a database file cannot be used.
type Problem int

// The problems.
const (
	NoFolder       Problem = iota + 1 // its folder is missing or cannot be read
	NoLockFile                        // the lock file next to it cannot be opened
	InUse                             // another process has it open
	NotCreated                        // there is none, and it cannot be created
	NotFound                          // there is none
	Unreadable                        // it cannot be read
	NotRegular                        // it is not a file
	NotSQLite                         // it is not a SQLite database
	OtherProgram                      // it is a database of another program
	NewerSchema                       // a newer version of the program has changed its schema
	PublicReadable                    // other users can read it, and its mode cannot be changed
)

var problems = map[Problem]string{
	NoFolder: "its folder cannot be used", NoLockFile: "its lock file cannot be opened", InUse: "another process has it open",
	NotCreated: "it cannot be created", NotFound: "there is none", Unreadable: "it cannot be read", NotRegular: "not a file",
	NotSQLite: "not a SQLite database", OtherProgram: "a database of another program", NewerSchema: "its schema is newer",
	PublicReadable: "other users can read it",
}

func (p Problem) String() string { return problems[p] }

// FileError is returned for a database file that cannot be used.
type FileError struct {
	Problem Problem
	Path    string
	Holder  int      // for InUse: id of the process that has it open; 0: unknown
	Version int64    // for NewerSchema: its schema version
	Latest  int64    // for NewerSchema: the latest version of this program
	Tables  []string // for OtherProgram: its tables, as far as they can be read
	Err     error    // cause; nil: none
}

func (e *FileError) Error() string {
	text := e.Path + ": " + e.Problem.String()
	switch {
	case e.Holder != 0:
		text += fmt.Sprintf(" (process %d)", e.Holder)
	case e.Problem == NewerSchema:
		text += fmt.Sprintf(" (%d, supported are up to %d)", e.Version, e.Latest)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *FileError) Unwrap() error { return e.Err }

// BackupError is returned if no copy could be made before a migration.
type BackupError struct {
	Path string // of the copy
	Err  error
}

func (e *BackupError) Error() string {
	return e.Path + ": no copy before the migration: " + e.Err.Error()
}

func (e *BackupError) Unwrap() error { return e.Err }

// SQLite's result codes that are handled here. The low byte is the primary
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

// code returns SQLite's result code in err's chain, 0 if there is none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// FaultOf classifies an error of this package or of the driver; 0 means that
// the statement is wrong, or that err is nil.
func FaultOf(err error) database.Fault {
	if err == nil {
		return 0
	}
	switch c := code(err); {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		(c&0xff == codeCantOpen || c&0xff == codeIOErr) && outOfDescriptors():
		return database.NoDescriptors
	case c&0xff == codeFull, errors.Is(err, syscall.ENOSPC):
		return database.DiskFull
	case c&0xff == codeIOErr:
		return database.IOFailed
	case c&0xff == codeBusy, c&0xff == codeLocked:
		return database.Busy
	case c&0xff == codeReadOnly, c&0xff == codeCantOpen:
		return database.ReadOnly
	case c&0xff == codeCorrupt, c&0xff == codeNotADB:
		return database.Damaged
	case errors.Is(err, sql.ErrConnDone), err.Error() == "sql: database is closed":
		return database.Closed
	}
	return 0
}

// IsDuplicate reports whether err is a violation of a unique constraint.
func IsDuplicate(err error) bool {
	c := code(err)
	return c == codeUnique || c == codePrimaryKey
}

// IsMissingTable reports whether err means that a table of the statement does
// not exist, as in a database of an earlier schema.
func IsMissingTable(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && strings.Contains(e.Error(), "no such table")
}

// outOfDescriptors reports whether this process cannot open the files that
// SQLite needs for a transaction. SQLite does not return the system's error.
func outOfDescriptors() bool {
	for range 4 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
		}
		defer f.Close()
	}
	return false
}
