package agentcli

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// quote shortens a CLI's message to fit into a sentence.
func quote(s string) string {
	s = Clip(OneLine(s), maxQuote)
	if s == "" {
		return ""
	}
	return `"` + s + `"`
}

// quoting returns `who: "what"`, or who alone if what is empty.
func quoting(who, what string) string {
	if q := quote(what); q != "" {
		return who + ": " + q
	}
	return who
}

// OneLine replaces control characters and white space with single spaces and removes terminal
// colours.
func OneLine(s string) string {
	s = firstBytes(s, 4*maxReason)
	s = strings.ToValidUTF8(stripANSI(s), "\uFFFD")
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }), " ")
}

// stripANSI removes terminal escape sequences.
func stripANSI(s string) string {
	if !strings.Contains(s, "\x1b") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			i += escapeLength([]byte(s[i:min(len(s), i+maxEscape)]))
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}

// firstBytes returns at most n bytes from the start of s, without splitting a character.
func firstBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := 0; i < utf8.UTFMax && n > 0 && !utf8.RuneStart(s[n]); i++ {
		n--
	}
	return s[:n]
}

// lastBytes returns at most n bytes from the end of b, without splitting a character.
func lastBytes(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	b = b[len(b)-n:]
	for i := 0; i < utf8.UTFMax-1 && len(b) > 0 && !utf8.RuneStart(b[0]); i++ {
		b = b[1:]
	}
	return b
}

// Clip cuts s to at most n bytes at a character, and marks the cut.
func Clip(s string, n int) string { return format.Fit(s, n) }

// cutMark ends a final answer that was truncated.
const cutMark = "\n… (truncated; the log contains the whole text)"

// clipText truncates a final answer to MaxResult bytes of valid UTF-8.
func clipText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= agented.MaxResult {
		return s
	}
	return format.Truncate(s, agented.MaxResult-len(cutMark)) + cutMark
}
