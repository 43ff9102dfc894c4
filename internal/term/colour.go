// Package term prints to a terminal: colours, tables, and external text without control sequences. It
// also reads standard input.
package term

import (
	"encoding/json"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/agented/agented/internal/config"
)

// IsTerminal reports whether f is a terminal; colours and progress are printed only on terminals.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// ANSI escape sequences for colours.
const (
	Red    = "31"
	Green  = "32"
	Yellow = "33"
	Cyan   = "36"
	Faint  = "2"
)

// Paint colours s if f is a terminal and NO_COLOR is unset or empty.
func Paint(f *os.File, colour, s string) string {
	if config.NoColor() || !IsTerminal(f) {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// StatusColour returns the colour of an execution status.
func StatusColour(status string) string {
	switch status {
	case "success":
		return Green
	case "running":
		return Cyan
	case "pending", "paused", "cancelled":
		return Yellow
	}
	return Red
}

// PrintJSON writes v as indented JSON.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Table writes rows in columns under a header.
func Table(w io.Writer, header string, rows [][]string) error {
	return writeTable(w, strings.Fields(header), rows, terminalWidth(w), func(column, cell, shown string) string {
		f, ok := w.(*os.File)
		if !ok || column != "STATUS" {
			return shown
		}
		return Paint(f, StatusColour(cell), shown)
	})
}
