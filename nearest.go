package agented

import (
	"fmt"
	"strings"
)

// clip shortens input that an error quotes.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// suggest returns `; did you mean "x"?` for the nearest known word, or "".
func suggest(word string, known []string) string {
	if best := Nearest(word, known); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// Nearest returns the known word that a typo most likely stands for: the
// nearest one within two edits, or within a third of the word's length if that
// is more. It returns "" if there is none. Case is ignored.
func Nearest(word string, known []string) string {
	best, bestAt := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := EditDistance(strings.ToLower(word), strings.ToLower(k)); d < bestAt {
			best, bestAt = k, d
		}
	}
	return best
}

// EditDistance returns the Levenshtein distance in bytes, using one row.
func EditDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
