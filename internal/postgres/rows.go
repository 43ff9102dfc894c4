package postgres

import (
	"database/sql"
	"database/sql/driver"
	"strings"
	"unicode/utf8"

	"github.com/agented/agented/internal/database"
	"github.com/jackc/pgx/v5"
)

// rows are the rows of a query, alone or as the last statement of a batch.
type rows struct {
	pgx.Rows
	batch   pgx.BatchResults // nil: alone
	tx      *Tx              // nil: outside of a write transaction
	release func()           // nil: nothing to release
	closed  bool
	err     error // found by Close
}

// Err returns the error that ended Next.
func (r *rows) Err() error {
	if err := r.Rows.Err(); err != nil {
		if r.tx != nil {
			r.tx.fail(err)
		}
		return err
	}
	return r.err
}

// Close reads what is left.
func (r *rows) Close() error {
	if r.closed {
		return r.err
	}
	r.closed = true
	r.Rows.Close()
	r.err = r.Rows.Err()
	if r.batch != nil {
		if err := r.batch.Close(); r.err == nil {
			r.err = err
		}
	}
	if r.tx != nil {
		r.tx.fail(r.err)
	}
	if r.release != nil {
		r.release()
	}
	return r.err
}

// row is the first of some rows.
type row struct {
	rows database.Rows
	err  error
}

// Scan copies the columns of the row, or returns sql.ErrNoRows.
func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return r.rows.Close()
}

// queue adds a statement to a batch.
func queue(b *pgx.Batch, q string, args []any) error {
	args, err := values(args)
	if err != nil {
		return err
	}
	b.Queue(q, args...)
	return nil
}

// values converts arguments as database/sql does.
func values(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(a)
		if err != nil {
			return nil, err
		}
		if s, ok := v.(string); ok {
			v = Text(s)
		}
		out[i] = v
	}
	return out, nil
}

// Text returns a text as PostgreSQL can store it: NUL and bytes that are not UTF-8
// become U+FFFD.
func Text(s string) string {
	if !strings.ContainsRune(s, 0) && utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}
