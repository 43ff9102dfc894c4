package webhook

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented/internal/format"
)

// Clean returns the text as a person would see it: without terminal escape
// sequences, control characters other than line feed and tab, and invisible
// characters (zero-width ones, direction overrides, tags, variation selectors,
// fillers, private use), which could hide instructions for an agent from a
// human reader. Line breaks become line feeds, other spaces become a space,
// invalid UTF-8 becomes U+FFFD.
func Clean(s string) string {
	if cleanASCII(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\x1b' || r == '\u009b' || r == '\u009d' || r == '\u0090':
			i += escapeLength(s[i:], r, n)
			continue
		case r == '\r':
			if !strings.HasPrefix(s[i+n:], "\n") {
				b.WriteByte('\n')
			}
		case r == '\u0085' || r == '\u2028' || r == '\u2029':
			b.WriteByte('\n')
		case r == '\n' || r == '\t' || r >= ' ' && r < 0x7f:
			b.WriteByte(byte(r))
		case unicode.Is(unicode.Zs, r):
			b.WriteByte(' ')
		case visible(r):
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

func cleanASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\n' && c != '\t') || c >= 0x7f {
			return false
		}
	}
	return true
}

// visible reports whether a rune other than a space is visible or visibly
// changes an adjacent one.
func visible(r rune) bool {
	return unicode.IsGraphic(r) && r != '\u2800' &&
		!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) &&
		!unicode.Is(unicode.Variation_Selector, r)
}

// escapeLength returns the length in bytes of the escape sequence at the start
// of s, whose first rune is first and n bytes long. For a sequence that does
// not end within 256 bytes it is the length of the introducer, so that the
// following text is kept.
func escapeLength(s string, first rune, n int) int {
	const most = 256
	kind := byte(0)
	switch first {
	case '\u009b':
		kind = '['
	case '\u009d', '\u0090':
		kind = ']'
	default:
		if len(s) > n {
			kind = s[n]
		}
		n++
	}
	window := s[:min(len(s), most)]
	switch {
	case kind == '[': // CSI: parameters, then one final byte
		for i := n; i < len(window); i++ {
			if c := window[i]; c >= 0x40 && c <= 0x7e {
				return i + 1
			} else if c < 0x20 || c > 0x7e {
				return i
			}
		}
		return min(n, len(s))
	case strings.IndexByte("]PX^_", kind) >= 0 && kind != 0: // strings, ended by BEL or ST
		for i := n; i < len(window); i++ {
			if window[i] == '\a' {
				return i + 1
			}
			if strings.HasPrefix(window[i:], "\x1b\\") || strings.HasPrefix(window[i:], "\u009c") {
				return i + 2
			}
		}
		return min(n, len(s))
	case kind >= ' ' && kind <= '/' && len(window) > n && window[n] >= '0' && window[n] <= '~': // charset selection and similar
		return n + 1
	case kind >= '0' && kind <= '~':
		return n
	}
	return 1
}

// brief returns a cleaned text on one line of at most limit bytes, for a reason
// or a stored delivery. limit must be more than 3.
func brief(s string, limit int) string {
	if len(s) > 4*limit {
		s = s[:4*limit] // cleaning shortens the text; avoid cleaning a whole body
	}
	s = strings.Join(strings.Fields(Clean(s)), " ")
	return format.Fit(s, limit)
}
