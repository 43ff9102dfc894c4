// Package format formats numbers and texts for people.
package format

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bytes formats a number of bytes, such as 1.5 MiB.
func Bytes(n int64) string {
	const units = "KMGTPE"
	f, i := float64(n), -1
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i < 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + fmt.Sprintf(" %ciB", units[i])
}

// Plural formats a number with the singular or the plural of a noun.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Truncate shortens a text to at most n bytes, between characters.
func Truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Clip is like Truncate and marks a shortened text with an ellipsis. It also removes invalid UTF-8
// from a text that it shortens.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// Fit is like Truncate and marks a shortened text with an ellipsis, which is part of the n bytes.
func Fit(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	return Truncate(s, n-len(mark)) + mark
}

// ClipCharacters shortens a text to n characters and marks a shortened text with an ellipsis.
func ClipCharacters(s string, n int) string {
	if len(s) <= n {
		return s
	}
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// Printable returns a text in which the replacement stands for each character that cannot be
// printed, such as a control character.
func Printable(s string, replacement rune) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return replacement
	}, s)
}
