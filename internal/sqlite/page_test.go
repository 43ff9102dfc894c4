package sqlite

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/agented/agented/internal/database"
)

func TestPage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ limit, want int }{{0, database.DefaultLimit}, {-1, database.DefaultLimit}, {7, 7}, {database.MaxLimit + 1, database.MaxLimit}} {
		if got := (database.Page{Limit: c.limit}).Size(); got != c.want {
			t.Errorf("limit %d: %d rows, want %d", c.limit, got, c.want)
		}
	}
	if key, err := (database.Page{}).After("note", 1); key != nil || err != nil {
		t.Errorf("first page: %v, %v", key, err)
	}
	for _, bad := range []string{"x", "%%%", database.Cursor("song", "1"), database.Cursor("note"), database.Cursor("note", "1", "2")} {
		if _, err := (database.Page{Cursor: bad}).After("note", 1); !errors.Is(err, database.ErrCursor) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	db := openNew(t)
	for i := range 7 {
		note(t, db, fmt.Sprintf("%02d", i))
	}
	var got []string
	for p := (database.Page{Limit: 3}); ; {
		after, err := p.After("note", 1)
		if err != nil {
			t.Fatal(err)
		}
		var w database.Where
		if after != nil {
			w.And(`text > $?`, after[0])
		}
		list, err := texts(db.Readers().Query(`SELECT text FROM note`+w.SQL()+` ORDER BY text LIMIT `+strconv.Itoa(p.Size()+1), w.Args()...))
		if err != nil {
			t.Fatal(err)
		}
		list, p.Cursor = database.Cut(p, list, "note", func(s *string) []string { return []string{*s} })
		got = append(got, list...)
		if p.Cursor == "" {
			break
		}
	}
	if want := stored(t, db.Readers()); !slices.Equal(got, want) {
		t.Errorf("paged: %v, want %v", got, want)
	}
}

func TestWhere(t *testing.T) {
	t.Parallel()
	var w database.Where
	if text := w.Number(`x = $?`, "first"); text != `x = $1` || w.SQL() != "" {
		t.Errorf("without conditions: %q, %q", text, w.SQL())
	}
	w.And(`a = $? AND b < $?`, 1, 2)
	w.And(`c IN ` + database.In(&w, []string{"x", "y"}))
	if got, want := w.SQL(), ` WHERE a = $2 AND b < $3 AND c IN ($4, $5)`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := fmt.Sprint(w.Args()...); got != fmt.Sprint("first", 1, 2, "x", "y") {
		t.Errorf("arguments %v", w.Args())
	}
}
