package database_test

import (
	"fmt"

	"github.com/agented/agented/internal/database"
)

func ExampleWhere() {
	var w database.Where
	w.And(`title > $?`, "Gymnopédie")
	w.And(`id IN ` + database.In(&w, []int{3, 5}))
	fmt.Println(`SELECT title FROM song`+w.SQL(), w.Args())
	// Output: SELECT title FROM song WHERE title > $1 AND id IN ($2, $3) [Gymnopédie 3 5]
}

func ExampleCut() {
	page := database.Page{Limit: 2}
	rows := []string{"Gymnopédie", "Parade", "Socrate"} // one more than the page has
	rows, page.Cursor = database.Cut(page, rows, "songs", func(s *string) []string { return []string{*s} })
	fmt.Println(rows)
	fmt.Println(page.After("songs", 1))
	// Output:
	// [Gymnopédie Parade]
	// [Parade] <nil>
}
