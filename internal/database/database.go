// Package database is what the database engines have in common: their methods,
// the faults that they report, group commit, and the pages and conditions of
// queries.
//
// The engines are the packages sqlite and postgres. Statements are written once
// for both: parameters are $1, $2 and so on, times are integers, JSON is text.
package database

import "context"

// Engine is an open database with one writer. Its methods are safe for concurrent
// use.
type Engine interface {
	// Write runs f in the single write transaction and commits. If the context
	// ends before the transaction begins, nothing is written; afterwards it is
	// ignored.
	Write(ctx context.Context, f func(Tx) error) error
	// Read runs f in a read transaction, whose reads are consistent.
	Read(ctx context.Context, f func(ReadTx) error) error
	// Query returns the rows of a read statement outside of a transaction.
	Query(ctx context.Context, q string, args ...any) (Rows, error)
	// Row returns the first row of a read statement outside of a transaction.
	Row(ctx context.Context, q string, args ...any) Row
	// RowPrepared is Row for frequent statements with constant text.
	RowPrepared(ctx context.Context, q string, args ...any) Row
	// InTurn runs f while no write transaction runs, and its changes are visible
	// to those that follow.
	InTurn(f func())
	// Trace sets a function that is called before each statement of a write
	// transaction, including BEGIN and COMMIT, for tests. Nil removes it.
	Trace(f func(query string))
	// Size returns the size of the database in bytes.
	Size(ctx context.Context) (int64, error)
	// Shrink returns unused space to the system, as far as the engine can, and by
	// how many bytes the database shrank.
	Shrink(ctx context.Context) (int64, error)
	// Close waits for the current transaction, if any. Later calls of other
	// methods return an error of the fault Closed.
	Close() error
}

// Tx is a write transaction. It exists only during the call of Write that
// created it.
type Tx interface {
	// Context returns the context of the transaction, which is never cancelled.
	Context() context.Context
	// Exec executes a statement. An engine may send it later, with the next
	// statement that returns something: then that one returns its error.
	Exec(q string, args ...any) error
	// Affected executes a statement and returns the number of affected rows.
	Affected(q string, args ...any) (int64, error)
	// Query returns the rows of a query. Close them before the next statement.
	Query(q string, args ...any) (Rows, error)
	// Row returns the first row of a query.
	Row(q string, args ...any) Row
	// Savepoint runs f so that its error undoes only what f has written. It
	// returns the error of f, and the error of the transaction, which then has
	// failed.
	Savepoint(f func() error) (failed, err error)
	// OnCommit sets the function that is called after the commit, before the next
	// write transaction. It must not call the engine.
	OnCommit(f func())
}

// ReadTx is a read transaction: its reads are consistent.
type ReadTx interface {
	// Query returns the rows of a query. Close them before the next statement.
	Query(q string, args ...any) (Rows, error)
	// Row returns the first row of a query.
	Row(q string, args ...any) Row
}

// Rows are the rows of a query, as those of database/sql.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Row is the row of a query, as that of database/sql: Scan returns
// sql.ErrNoRows if there is none.
type Row interface {
	Scan(dest ...any) error
}

// Fault is why a database cannot work. An engine classifies its errors; 0 is a
// wrong statement, or no error.
type Fault int

// The faults.
const (
	NoDescriptors Fault = iota + 1 // the process has no file descriptors left
	DiskFull
	IOFailed
	Busy // another program has locked the file
	ReadOnly
	Damaged
	Closed      // Close was called
	Unreachable // the connection to the database server was lost, or cannot be opened
	Unknown     // it was lost during a commit, and whether that was executed is unknown
	Taken       // another server has taken over the database
)
