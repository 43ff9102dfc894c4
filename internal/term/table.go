package term

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// columnGap is the number of blanks between two columns.
const columnGap = 2

// minLastColumn is the minimum width of the last column on a narrow terminal.
const minLastColumn = 12

// writeTable writes rows under a header. Column widths follow the display width of the text. If
// most is above 0, the last column is cut so that lines fit into most columns. style may colour a
// cell after padding.
func writeTable(w io.Writer, header []string, rows [][]string, most int, style func(column, cell, shown string) string) error {
	widths := make([]int, len(header))
	all := append([][]string{header}, rows...)
	for _, r := range all {
		for i := range r {
			r[i] = Cell(r[i])
			if i < len(widths) {
				widths[i] = max(widths[i], textWidth(r[i]))
			}
		}
	}
	last := 0 // width of the last column; 0 means no limit
	if most > 0 {
		used := 0
		for _, n := range widths[:len(widths)-1] {
			used += n + columnGap
		}
		last = max(most-used, minLastColumn)
	}
	var b strings.Builder
	for n, r := range all {
		for i, cell := range r {
			if i == len(header)-1 {
				if last > 0 {
					cell = cutWidth(cell, last)
				}
				b.WriteString(styled(style, n, header[i], cell, cell))
				break
			}
			b.WriteString(styled(style, n, header[i], cell, cell))
			b.WriteString(strings.Repeat(" ", max(0, widths[i]-textWidth(cell))+columnGap))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func styled(style func(column, cell, shown string) string, row int, column, cell, shown string) string {
	if row == 0 || style == nil {
		return shown
	}
	return style(column, cell, shown)
}

// textWidth returns the number of terminal columns of a text.
func textWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf), r >= 0x1160 && r <= 0x11ff: // combined with the previous character
		return 0
	case r >= 0x1f300 && r <= 0x1faff:
		return 2
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cutWidth shortens a text to a number of columns.
func cutWidth(s string, most int) string {
	if textWidth(s) <= most {
		return s
	}
	n := 0
	for i, r := range s {
		if n += runeWidth(r); n > most-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// terminalWidth returns the width of the terminal w, or 0 if w is not a terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !IsTerminal(f) {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}
