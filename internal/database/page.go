package database

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Page sizes.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// LastRune sorts after every text that continues a prefix.
const LastRune = "\U0010ffff"

// ErrCursor is returned for a cursor of another list, or none.
var ErrCursor = errors.New("not a cursor of this list")

// Page selects a part of a list. Cursor is the result of the call for the
// previous page; it stays valid while rows are added and removed.
type Page struct {
	Limit  int    // at most MaxLimit; 0 means DefaultLimit
	Cursor string // empty for the first page
}

// Size returns the number of rows of the page. Read one more: [Cut] uses it to
// detect that there is another page.
func (p Page) Size() int {
	if p.Limit <= 0 {
		return DefaultLimit
	}
	return min(p.Limit, MaxLimit)
}

// Cursor encodes the position after a row of a list from the row's sort key.
func Cursor(list string, key ...string) string {
	text, _ := json.Marshal(append([]string{list}, key...)) // strings always marshal
	return base64.RawURLEncoding.EncodeToString(text)
}

// After returns the sort key in the page's cursor, nil for the first page, and
// ErrCursor for a cursor of another list.
func (p Page) After(list string, parts int) ([]string, error) {
	if p.Cursor == "" {
		return nil, nil
	}
	var key []string
	text, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err == nil {
		err = json.Unmarshal(text, &key)
	}
	if err != nil || len(key) != parts+1 || key[0] != list {
		return nil, ErrCursor
	}
	return key[1:], nil
}

// Cut returns the rows of the page, and the cursor of the next page, empty if
// there is none. key returns the sort key of a row of the list.
func Cut[T any](p Page, rows []T, list string, key func(*T) []string) ([]T, string) {
	n := p.Size()
	if len(rows) <= n {
		return rows, ""
	}
	return rows[:n], Cursor(list, key(&rows[n-1])...)
}

// Where collects conditions and their arguments. $? becomes the next number.
type Where struct {
	conds []string
	args  []any
}

// And adds a condition.
func (w *Where) And(cond string, args ...any) {
	w.conds = append(w.conds, w.Number(cond, args...))
}

// Number replaces each $? with the number of its argument.
func (w *Where) Number(s string, args ...any) string {
	for _, a := range args {
		w.args = append(w.args, a)
		s = strings.Replace(s, "$?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	return s
}

// SQL returns the clause, with a space before it; empty without conditions.
func (w *Where) SQL() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

// Args returns the arguments so far.
func (w *Where) Args() []any { return w.args }

// In adds arguments and formats them as a list for IN.
func In[T any](w *Where, list []T) string {
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(w.Number("$?", v))
	}
	return "(" + b.String() + ")"
}
