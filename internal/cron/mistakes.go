package cron

import (
	"fmt"
	"slices"
	"strings"
)

// ascii replaces characters that resemble those of cron.
var ascii = strings.NewReplacer("‐", "-", "‑", "-", "‒", "-", "–", "-", "—", "-", "―", "-", "−", "-", "－", "-",
	"，", ",", "‚", ",", "、", ",", "＊", "*", "∗", "*", "⁎", "*", "✱", "*", "／", "/", "⁄", "/", "∕", "/")

// beyond explains the words after the five fields, or returns "".
func beyond(words []string) string {
	if len(words) < 6 {
		return ""
	}
	five, sixth := strings.Join(words[:5], " "), words[5]
	day := slices.ContainsFunc(fields[4].names, func(name string) bool { return strings.HasPrefix(strings.ToUpper(sixth), name) })
	letter := sixth[0] == '/' && len(sixth) > 1 || sixth[0] == '.' || sixth[0] == '_' || sixth[0]|0x20 >= 'a' && sixth[0]|0x20 <= 'z'
	switch {
	case letter && !day:
		return fmt.Sprintf("schedule %q has more than the five cron fields, like a line of a crontab with a user or a command: keep %q and put the command into the trigger", clip(strings.Join(words, " ")), five)
	case len(words) == 6 && yearField(sixth):
		return fmt.Sprintf("schedule %q ends with a year, which cron does not have: remove it, or use \"once\" and a time, such as \"once 2030-01-31T09:00:00Z\"", clip(strings.Join(words, " ")))
	}
	return ""
}

// yearField reports whether a field contains a year of four digits.
func yearField(text string) bool {
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '-' || r == '/' }) {
		if n, ok := number(part); ok && len(part) == 4 && n >= 1970 && n <= 2199 {
			return true
		}
	}
	return false
}
