package store

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/agented/agented"
)

// The bounds of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// lastRune sorts behind every text that goes on after a prefix.
const lastRune = "\U0010ffff"

// Page asks for a part of a list. A cursor is what the call for the page before
// returned; it stays good while rows come and go.
type Page struct {
	Limit  int    // at most MaxLimit; 0 is DefaultLimit
	Cursor string // empty for the first page
}

func (p Page) limit() int {
	if p.Limit <= 0 {
		return DefaultLimit
	}
	return min(p.Limit, MaxLimit)
}

// cursor names the place behind a row of a list by the row's sort key.
func cursor(list string, key ...string) string {
	text, _ := json.Marshal(append([]string{list}, key...)) // strings always marshal
	return base64.RawURLEncoding.EncodeToString(text)
}

// after returns the key that the page's cursor holds, nil for the first page.
func (p Page) after(list string, parts int) ([]string, error) {
	if p.Cursor == "" {
		return nil, nil
	}
	var key []string
	text, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err == nil {
		err = json.Unmarshal(text, &key)
	}
	if err != nil || len(key) != parts+1 || key[0] != list {
		return nil, badCursor()
	}
	return key[1:], nil
}

func badCursor() error {
	return agented.InvalidFields([]agented.Field{{
		Path: "cursor", Text: "is not one that this list returned: leave it out to start from the first page",
	}})
}

// where gathers conditions and their arguments. $? becomes the next number.
type where struct {
	conds []string
	args  []any
}

func (w *where) and(cond string, args ...any) {
	w.conds = append(w.conds, w.number(cond, args...))
}

// number replaces each $? by the number under which its argument is kept.
func (w *where) number(s string, args ...any) string {
	for _, a := range args {
		w.args = append(w.args, a)
		s = strings.Replace(s, "$?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	return s
}

func (w *where) sql() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

// in lists arguments for an IN.
func in[T any](w *where, list []T) string {
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(w.number("$?", v))
	}
	return "(" + b.String() + ")"
}
