package term

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Printable replaces the control characters of external text by spaces, so that it stays
// on one line.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// Cell returns printable text of at most 100 characters, for a cell of a table or a
// summary on one line.
func Cell(s string) string {
	s = Printable(s)
	if r := []rune(s); len(r) > 100 {
		s = string(r[:99]) + "…"
	}
	return s
}

// Ago formats a time relative to now; nil is "-".
func Ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	d := time.Since(*t)
	switch {
	case d < 0:
		return "in " + Duration(-d)
	case d < 10*time.Second:
		return "now"
	}
	return Duration(d) + " ago"
}

// Duration formats a duration in its largest unit.
func Duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Compact formats a value as JSON on one line.
func Compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return Printable(string(b))
}

// ErrorText returns the text of an error with the fields that it concerns.
func ErrorText(err error) string {
	text := err.Error()
	var e *agented.Error
	if errors.As(err, &e) {
		text = e.Text // the cause belongs in the log
		if len(e.Fields) > 1 || len(e.Fields) == 1 && !strings.Contains(text, e.Fields[0].Path) {
			for _, f := range e.Fields {
				if strings.Contains(e.Text, "\n  "+f.Path+": ") {
					continue // the error text of the settings contains its fields
				}
				text += fmt.Sprintf("\n  %s: %s", f.Path, f.Text)
			}
		}
	}
	return Safe(text)
}
